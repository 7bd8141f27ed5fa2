"""The filter for fail2ban finds those who were turned away, and nobody else, in what the service really writes."""

import itertools
import re
import shutil
import socket
import sys
import time
from pathlib import Path

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, output_of, run
from tests.interop.mux import twist_command
from tests.support.queues import until_taken

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
match = http
backend = close

[route pretends]
match = postgres user=*
backend = 127.0.0.1:{server}
"""

_PRETENCE = (
    b"2026-11-20T22:43:41.983Z info  [txmux.access#info] id=1 listener=x client=192.0.2.1:5 local=- route=- backend=- server=- server_local=- bytes_in=0 "
    b"bytes_out=0 detect_ms=- connect_ms=- duration_ms=0 reason=denied "
)
_STARTUP = (
    b"\x00\x03\x00\x00user\x00"
    + _PRETENCE
    + b"\x00database\x00"
    + b'","reason":"denied"'
    + b"\x00\x00"
)


class FilterTests(InteropTestCase):
    """The log, as text and JSON, in a file and with the service's own."""

    def logged(self, form: str, *, own_file: bool = True, by_run: bool = False) -> Path:
        """Let clients be turned away, each for another reason, and one be served; gives the log, by a file or the service's own."""
        folder = self.make_folder()
        log = folder / "access.log"
        rules = folder / "rules.ini"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            rules.write_text(_RULES.format(log=log if own_file else "-", form=form, server=port))
            words = (
                (sys.executable, "-m", "txmux", "run", rules)
                if by_run
                else (*twist_command(), "--log-format=text", "txmux", "--rules", rules)
            )
            child = self.own(Child(*map(str, words)))
            ports = {
                name: int(child.wait_for(rf"listening on \S+:(\d+) for \[listen {name}\]")[1])
                for name in ("public", "impatient", "limited", "proxied", "six")
            }
            child.wait_for("Starting reactor|, rules ")
            self.visit(ports["public"], b"GET / HTTP/1.1\r\n")
            self.visit(ports["public"], b"\xff")
            self.visit(ports["impatient"], b"")
            self.visit(ports["six"], b"GET / HTTP/1.1\r\n", "::1")
            self.visit(ports["proxied"], b"no header\r\n\r\n")
            with socket.create_connection(("127.0.0.1", ports["limited"])) as first:
                first.sendall(b"G")
                until_taken(first)  # so it comes first, whatever overtakes what
                self.visit(ports["limited"], b"")
                first.sendall(b"\xff")
                first.recv(1)
            startup = (4 + len(_STARTUP)).to_bytes(4, "big") + _STARTUP
            with socket.create_connection(("127.0.0.1", ports["public"])) as client:
                client.sendall(startup)
                accepted, _ = server.accept()
                with accepted:
                    received = b""
                    while len(received) < len(startup):
                        received += accepted.recv(4096)

        def lines() -> int:
            text = log.read_text() if own_file else child.output
            return len(re.findall(r'duration_ms"?[=:][0-9]+\.', text))

        eventually(lambda: lines() == 8, "there is a line of every client")
        child.end()
        if not own_file:
            log.write_text(child.output)
        return log

    def visit(self, port: int, said: bytes, host: str = "127.0.0.1") -> None:
        with socket.create_connection((host, port), timeout=PATIENCE) as client:
            if said:
                client.sendall(said)
            self.assertEqual(client.recv(1), b"")

    def found(self, log: Path, reasons: str = "") -> list[tuple[str, str]]:
        chosen = f'{_FILTER}[reasons="{reasons}"]' if reasons else str(_FILTER)
        shown = output_of("fail2ban-regex", "--out", "<ip> <matches>", str(log), chosen)
        lines = [line.split(" ", 1) for line in shown.decode().splitlines()]
        return sorted((ip, re.findall(r'reason"?[=:]"?([a-z-]+)', line)[0]) for ip, line in lines)

    def assert_found(self, log: Path) -> None:
        wanted = ["denied", "limit", "no-route", "no-route", "proxy-header", "silent"]
        self.assertEqual(
            self.found(log), [*[("127.0.0.1", reason) for reason in wanted], ("::1", "denied")]
        )

    def test_text(self) -> None:
        self.assert_found(self.logged("text"))

    def test_json(self) -> None:
        self.assert_found(self.logged("json"))

    def test_service_log(self) -> None:
        """The service's own log, among other lines, as such and as syslog has it."""
        for form, by_run in itertools.product(("text", "json"), (False, True)):
            log = self.logged(form, own_file=False, by_run=by_run)
            self.assert_found(log)
            before = f"{time.strftime('%b %d %H:%M:%S')} host twist[12]: "
            log.write_text("".join(before + line for line in log.open()))
            self.assert_found(log)

    def test_reasons(self) -> None:
        log = self.logged("text")
        self.assertEqual(
            self.found(log, "limit|silent"), [("127.0.0.1", "limit"), ("127.0.0.1", "silent")]
        )

    def test_jail_and_filter_are_a_valid_configuration(self) -> None:
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
