"""The filter for fail2ban finds those who were turned away, and nobody else, in what the service really writes."""

import itertools
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import pytest
from twisted.logger import LogLevel, capturedLogs, formatEventAsClassicLogText

from tests.programs import require_program
from tests.support.kit import PATIENCE, Child, InteropTestCase, eventually, output_of, run
from tests.support.queues import until_taken
from tests.support.services import command_for
from tests.wire.hello_builder import alpn, client_hello, records, server_name
from txmux.admin.guard import Caller
from txmux.admin.site import audit
from txmux.cli.run.program import as_text as as_event_text
from txmux.telemetry.access_log import as_json, as_text, quoted
from txmux.telemetry.reasons import EndReason
from txmux.telemetry.record import ConnectionRecord

pytestmark = pytest.mark.by_turns

_FAIL2BAN = Path(__file__).parents[2] / "examples" / "fail2ban"
_FILTER = _FAIL2BAN / "filter.d" / "txmux.conf"

_RULES = """
[txmux]
access_log = {log}
access_log_format = {form}
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 1h
[listen impatient]
endpoint = 127.0.0.1:0
detect_timeout = 300ms
[listen limited]
endpoint = 127.0.0.1:0
detect_timeout = 1h
max_connections_per_source = 1
[listen proxied]
endpoint = 127.0.0.1:0
detect_timeout = 1h
accept_proxy_from = 127.0.0.0/8
[listen six]
endpoint = [::1]:0
detect_timeout = 1h
[route denied]
under = *
match = http
backend = close
[route pretends]
under = *
match =
    postgres user=*
    tls sni=*
    ssh
    rdp
    socks5
backend = 127.0.0.1:{server}
"""

_VICTIM = "192.0.2.1"
_PRETENCE = (
    b"2026-11-20T22:43:41.983Z info  [txmux.access#info] id=1 listener=x client=192.0.2.1:5 local=- route=- backend=- server=- server_local=- bytes_in=0 "
    b"bytes_out=0 detect_ms=- connect_ms=- duration_ms=0 reason=denied "
)
_SHORT = _PRETENCE[:200]
_STARTUP = b"\0\3\0\0user\0" + _PRETENCE + b'\0database\0","reason":"denied"\0\0'
_COOKIE = b"Cookie: mstshash=%b\r\n" % _SHORT
_SAID = (
    (4 + len(_STARTUP)).to_bytes(4, "big") + _STARTUP,
    b"SSH-2.0-%b\r\n" % _SHORT,
    b"\5\1\0\5\1\0\3%c%b\0\1" % (len(_SHORT), _SHORT),
    records(client_hello(server_name(_SHORT.decode()), alpn(_SHORT))),
    b"\3\0\0%c%c\xe0\0\0\0\0\0%b" % (11 + len(_COOKIE), 6 + len(_COOKIE), _COOKIE),
)


class FilterTests(InteropTestCase):
    """The log, as text and JSON, in a file and with the service's own."""

    def logged(self, form: str, *, own_file: bool = True, by_run: bool = False) -> Path:
        """Let clients be turned away, each for another reason, and one be served; gives the log, by a file or the service's own."""
        folder = self.make_folder()
        log, rules = folder / "access.log", folder / "rules.ini"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            rules.write_text(_RULES.format(log=log if own_file else "-", form=form, server=port))
            child = self.own(Child(*map(str, command_for(rules, by_run=by_run))))
            ports = {
                name: int(child.wait_for(rf"listening on \S+:(\d+) for \[listen {name}\]")[1])
                for name in ("public", "impatient", "limited", "proxied", "six")
            }
            child.wait_for("Starting reactor|, rules ")
            names = b"Host: %b\r\nUser-Agent: %b\r\n\r\n" % (_PRETENCE, _PRETENCE)
            self.visit(ports["public"], b"GET / HTTP/1.1\r\n" + names)
            self.visit(ports["public"], b"\xff" + _PRETENCE)
            self.visit(ports["impatient"], b"")
            self.visit(ports["six"], b"GET / HTTP/1.1\r\n", "::1")
            self.visit(ports["proxied"], _PRETENCE + b"\r\n\r\n")
            with socket.create_connection(("127.0.0.1", ports["limited"])) as first:
                first.sendall(b"G")
                until_taken(first)  # so it comes first, whatever overtakes what
                self.visit(ports["limited"], b"")
                first.sendall(b"\xff")
                first.recv(1)
            for said in _SAID:
                with socket.create_connection(("127.0.0.1", ports["public"])) as client:
                    client.sendall(said)
                    accepted, _ = server.accept()
                    with accepted:
                        received = b""
                        while len(received) < len(said):
                            received += accepted.recv(4096)

        def lines() -> int:
            text = log.read_text() if own_file else child.output
            return len(re.findall(r'duration_ms"?[=:][0-9]+\.', text))

        eventually(lambda: lines() == 7 + len(_SAID), "there is a line of every client")
        child.end()
        if not own_file:
            log.write_text(child.output)
        return log

    def visit(self, port: int, said: bytes, host: str = "127.0.0.1") -> None:
        with socket.create_connection((host, port), PATIENCE) as client:
            client.sendall(said)
            self.assertEqual(client.recv(1), b"")

    def found(self, log: Path, **chosen_by_jail: str) -> list[tuple[str, str]]:
        chosen = str(_FILTER) + "".join(f'[{key}="{one}"]' for key, one in chosen_by_jail.items())
        shown = output_of("fail2ban-regex", "--out", "<ip> <matches>", str(log), chosen)
        lines = [line.split(" ", 1) for line in shown.decode().splitlines()]
        return sorted((ip, re.findall(r'reason"?[=:]"?([a-z-]+)', line)[0]) for ip, line in lines)

    def test_own_log_and_the_services(self) -> None:
        """In a file, and among other lines, as such and as syslog has it; jail and filter are a valid configuration."""
        reasons = ["denied", "limit", "no-route", "no-route", "proxy-header", "silent"]
        wanted = [*(("127.0.0.1", reason) for reason in reasons), ("::1", "denied")]
        for form in ("text", "json"):
            log = self.logged(form)
            self.assertEqual(self.found(log), wanted)
            chosen = [("127.0.0.1", "limit"), ("127.0.0.1", "silent")]
            self.assertEqual(self.found(log, reasons="limit|silent"), chosen)
            # Of listeners of other users, who may make up clients, a jail reads no line.
            chosen = [("127.0.0.1", "limit"), ("127.0.0.1", "no-route"), ("::1", "denied")]
            self.assertEqual(self.found(log, listeners="limited|six"), chosen)
            self.assertEqual(self.found(log, listeners="limit"), [])
            for by_run in (False, True):
                log = self.logged(form, own_file=False, by_run=by_run)
                self.assertEqual(self.found(log), wanted)
                before = f"{time.strftime('%b %d %H:%M:%S')} host twist[12]: "
                log.write_text("".join(before + line for line in log.open()))
                self.assertEqual(self.found(log), wanted)
        configuration = self.folder / "fail2ban"
        shutil.copytree("/etc/fail2ban", configuration)
        shutil.rmtree(configuration / "jail.d")
        shutil.copytree(_FAIL2BAN, configuration, dirs_exist_ok=True)
        log = self.folder / "access.log"
        log.touch()
        jail = configuration / "jail.d" / "txmux.conf"
        jail.write_text(jail.read_text().replace("/var/log/txmux/access.log", str(log)))
        done = run("fail2ban-client", "-c", configuration, "--test")
        self.assertIn(b"configuration test is successful", done.stdout)


_RECORD = ConnectionRecord(
    1.5, "5-1", "public", "198.51.100.7:4000", "127.0.0.1:443", "r", "b", "s", None, 1, 2, None, None, 1.0, 2.0, 3.0, "denied"
)  # fmt: skip
"""Of a client that was turned away."""
_DONE = attrs.evolve(_RECORD, client="203.0.113.9:1", reason="done")


def _forged() -> Iterator[str]:
    """Give whole lines about somebody else, and what would end another text before them."""
    about_another = attrs.evolve(_RECORD, client=f"{_VICTIM}:5")
    for line in (as_text(about_another), as_json(about_another), _PRETENCE.decode()):
        without_time = re.sub(r'time=\S+ |"time":"[^"]+",', "", line)
        for before in ("", *_PREFIXES):
            for end in ("", " ", "\n", "\r", "\r\n", "\n\t", "\x0b", "\x1c", "\x85", "\u2028", '"', '" ', '"}\n', "\\"):  # fmt: skip
                yield f"{end}{before}{line} "
            yield f"x: {before}{without_time}"
            yield f"\n{before}{without_time}"


_BY_JOURNAL = """
import json, sys, time
from fail2ban.client.filterreader import FilterReader
from fail2ban.server.filter import Filter

class Jail:
    name, database = "txmux", None

reader = FilterReader("txmux", "txmux", {}, basedir=sys.argv[1])
reader.read()
reader.getOptions({})
filter = Filter(Jail(), useDns="no")
for words in reader.convert():
    if words[2] == "addfailregex":
        for regex in words[3] if isinstance(words[3], list) else [words[3]]:
            filter.addFailRegex(regex)
for line in sys.stdin:
    print(*[match[1] for match in filter.processLine(("", "2026-11-26 ", line.rstrip()), time.time())])
"""
"""Has fail2ban read lines as it does those of the journal: it knows their time, and leaves what they say of it."""

_TIMES = ("2026-11-20T22:43:41.983Z info  ", "2026-11-20T22:43:41+0000 [txmux.access#info] ")
_SYSLOG = "Nov 20 22:43:41 host txmux[12]: "
_PREFIXES = (*_TIMES, _SYSLOG, f"{_SYSLOG}{_TIMES[0]}")


def _written(record: ConnectionRecord, *prefixes: str) -> list[str]:
    ways = itertools.product((as_text, as_json), prefixes or ("", *_PREFIXES))
    return [f"{before}{write(record)}\n" for write, before in ways]


class HostileTextTests(InteropTestCase):
    """Whatever others write into the log, nobody but the peer of a connection is found in it."""

    def found(self, lines: Iterable[str]) -> set[str]:
        log = self.make_folder() / "log"
        log.write_text("".join(lines), newline="")
        shown = output_of("fail2ban-regex", "--out", "<ip>", str(log), str(_FILTER))
        return {*shown.decode().split()}

    def test_every_field_of_a_line(self) -> None:
        """Names of rules and of servers, and facts, which have what clients, servers and certificates say."""
        lines = []
        for text, record in itertools.product(_forged(), (_RECORD, _DONE)):
            facts = {"sni": text, "tunnel_error": text}
            hostile = attrs.evolve(record, route=text, backend=text, server=text, facts=facts)
            lines += _written(hostile)
        self.assertEqual(self.found(lines), {"198.51.100.7"})

    def test_messages_of_the_service_log(self) -> None:
        """A message that has such a text anywhere, as `txmux run` and as `twist` write it."""
        lines = []
        messages = ("{text}", "{text}: why", "because {text}")
        for text, message in itertools.product(_forged(), messages):
            event = {
                "log_format": message, "text": text, "log_time": 1.5, "log_level": LogLevel.info,
                "log_namespace": "txmux.serving", "log_system": "-",
            }  # fmt: skip
            lines.append(as_event_text(event))
            lines.append(formatEventAsClassicLogText(event) or "")
            with capturedLogs() as audited:
                what = f"POST {quoted(f'/api/{text}')}"
                audit(Caller("127.0.0.1", "token 'x' from 127.0.0.1:5"), what, 403, text)
            lines += [as_event_text(one) for one in audited]
        self.assertEqual(self.found(lines), set())

    def test_journal(self) -> None:
        folder = self.make_folder()
        shutil.copytree(_FAIL2BAN, folder, dirs_exist_ok=True)
        before = ("host txmux[12]: ", f"host txmux[12]: {_TIMES[0]}")
        lines = [line for record in (_RECORD, _DONE) for line in _written(record, *before)]
        lines += [f"host txmux[12]: {_TIMES[0]}admin: {text!r}\n" for text in _forged()]
        python = Path(require_program("fail2ban-regex")).read_text().splitlines()[0][2:].split()
        said = "".join(lines).encode()
        found = output_of(*python, "-c", _BY_JOURNAL, str(folder), stdin=said)
        self.assertEqual(found.split(), [b"198.51.100.7"] * 4)

    def test_datagrams(self) -> None:
        """Their sender may be anybody: a flow that only one side has spoken in is no evidence, and no flow proves its address."""
        reasons: tuple[EndReason, ...] = ("denied", "limit", "no-route", "silent")
        lines = []
        for reason, sent in itertools.product(reasons, (0, 1)):
            flow = attrs.evolve(_RECORD, datagrams_in=1, datagrams_out=sent, reason=reason)
            lines += _written(flow)
        self.assertEqual(self.found(lines), set())
