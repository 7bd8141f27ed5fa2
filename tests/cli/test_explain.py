import io
import json
import re
import sys
import time
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.protocol import Factory
from zope.interface import implementer

from tests.support.changes import change_constants, change_environment, lack_modules
from tests.support.kit import CommandTestCase, Terminal, authority, make_authority
from tests.wire.hello_builder import client_hello, records, server_name, versions
from txmux.cli import explain
from txmux.interfaces import IProtocolMatcher, Peeked, Predicate, Verdict
from txmux.rules.model import InProcess
from txmux.rules.reading.parser import load
from txmux.rules.tracing import TracedOutcome

RULES = """\
[listen public]
endpoint = :443
silent   = ssh-server
default  = reset
deny     = 203.0.113.0/24

[route ssh]
match   = ssh
backend = ssh-server

[route web]
match   = http host=www.example.com
    payload text=HI
backend = 127.0.0.1:8080

[route inside]
match   = any
from    = 10.0.0.0/8
not_from = 10.1.0.0/16
backend = close

[backend ssh-server]
server = 127.0.0.1:22
    127.0.0.1:23
"""


class HelloTests(CommandTestCase):
    text = (
        "[listen a]\nendpoint = :1\n[route vip]\nmatch = tls sni=vip.test\nbackend = reject\n"
        "[route all]\nmatch = any\nbackend = 127.0.0.1:8080\n"
    )

    def test_hello_that_cannot_be_read_reaches_no_server(self) -> None:
        """A server might read the name of another route in it."""
        whole = records(client_hello(server_name("a.test"), versions(0x0304)))
        odd = whole[:2] + b"\x09" + whole[3:]
        message = whole[5:]
        many = b"".join(records(message[at : at + 1]) for at in range(len(message)))
        rows = ((whole, False), (whole[:40], True), (odd, True), (b"x", False))
        # It is one in however many records, but not beside something else.
        for data, is_refused in (*rows, (many, False), (records(message * 2), True)):
            document = json.loads(self.explain("--json", "--hex", data.hex()))
            [listener] = document["streams"][0]["listeners"]
            decided = listener["decision"] or listener["at_deadline"]
            self.assertEqual(decided["by"] == "tls-failed", is_refused, data)
        # Where no name is refused, it is one that no route recognises.
        self.rules.write_text(self.text.replace("reject", "127.0.0.1:8081"))
        document = self.explain_json("--hex", records(client_hello())[:40].hex())
        self.assertEqual(document["at_deadline"]["route"], "all")

    def test_cut_request_reaches_no_server_at_the_deadline(self) -> None:
        self.rules.write_text(
            "[listen a]\nendpoint = :1\ndefault = 127.0.0.1:8080\n"
            "[route vip]\nmatch = postgres sni=vip.test\nbackend = reject\n"
        )
        for text, is_refused in (
            (r"\x00\x00\x00\x08\x04", True), (r"\x00\x00\x00\x08\x04\xd2\x16\x30", True),
            (r"\x00\x00\x00\x08\x04\xd2\x16\x30\x00", True), (r"\x00\x00\x00\x09", False),
        ):  # fmt: skip
            told = self.explain("--text", text)
            self.assertEqual("finishes sending: tls-failed, close" in told, is_refused, told)


class CertificateTests(CommandTestCase):
    text = (
        "[listen a]\nendpoint = :1\n[route end]\nmatch = tls\nterminate_tls = site.pem\ntls_client_ca = ca.pem\n"
        "tls_client = optional\nbackend = 127.0.0.1:1\n"
        "[route bad]\nmatch = any\nunder = end\nclient_cert = revoked\nbackend = close\n"
        "[route staff]\nmatch = any\nunder = end\nclient_cert = san=*.example\nbackend = 127.0.0.1:2\n"
    )

    def setUp(self) -> None:
        super().setUp()
        authority().issue("a.example").write(self.folder / "site.pem", key=True)
        authority().write(self.folder / "ca.pem")

    def test_certificates(self) -> None:
        """What decides inside TLS by a certificate."""
        for shown, to in (
            (authority().issue("b.example", usage=False), "route staff, to 127.0.0.1:2"),
            (authority().issue("b.example", ends=-1, usage=False), "default, to 127.0.0.1:1"),
            (make_authority("Stranger").issue("b.example", usage=False), "default, to 127.0.0.1:1"),
            ("revoked", "route bad, close"), ("none", "default, to 127.0.0.1:1"), ("", "default, to 127.0.0.1:1"),
        ):  # fmt: skip
            what = shown if isinstance(shown, str) else str(shown.write(self.folder / "b.pem"))
            options = ("--client-cert", what) if what else ()
            told = self.explain("--inside", "end", *options, "--text", "x")
            self.assertIn(to, told.partition("decision")[2], what)
        self.assertIn("not asked: 'client_cert' does not fit the certificate", told)
        no_end = "there is no [route ned] that terminates TLS or opens tunnels; did you mean 'end'?"
        for line, said in (
            ("--client-cert none", "name the route that terminates it by --inside"),
            ("--inside ned", no_end),
            ("--inside end --client-cert x.pem", "cannot read 'x.pem'"),
        ):
            self.assertIn(said, self.unexplained(*line.split(), "--text", "x"))
        self.rules.write_text(self.text.replace("tls_client = optional\n", ""))
        error = self.unexplained("--inside", "end", "--client-cert", "none", "--text", "x")
        self.assertIn("[route end] wants a valid certificate, and this is none", error)
        # A route that asks for none.
        text = self.text.partition("[route bad]")[0].replace("tls_client", "# tls_client")
        self.rules.write_text(text)
        told = self.explain("--inside", "end", "--client-cert", "none", "--text", "x")
        self.assertIn("default, to 127.0.0.1:1", told)
        error = self.unexplained("--inside", "end", "--client-cert", "revoked", "--text", "x")
        self.assertIn("--client-cert: [route end] asks clients for no certificate", error)


class ServiceTests(CommandTestCase):
    text = RULES

    def of_listener(self, *lines: str) -> str:
        before = "silent   = ssh-server\ndefault  = reset\n"
        self.rules = self.write("rules.ini", RULES.replace(before, "\n".join([*lines, ""])))
        return self.explain("--text", "", "--from", "192.0.2.1").partition("\ndecision  ")[2]

    def test_silence(self) -> None:
        # The first line for the client.
        far = "silent = reset from=10.0.0.0/8"
        self.assertEqual(
            self.of_listener(f"{far} after=1s", "  127.0.0.1:3306 after=300ms"),
            "no byte: undecided, waits for more\n"
            "deadline  after 0.3s: route silent, to 127.0.0.1:3306\n"
            "          if the client finishes sending before that: close\n",
        )
        self.assertIn("after 5s: silent, close\n", self.of_listener(far))
        # A route by silence comes before the listener's lines.
        for keys, found in {
            "from = 192.0.2.0/24": "after 1s: route mail, to backend ssh-server",
            "not_from = 192.0.2.0/24": "after 2s: route silent, reset",
            "dry_run = yes": "after 2s: route silent, reset",
        }.items():
            mail = f"[route mail]\nmatch = silent after=1s\n{keys}\nbackend = ssh-server\n"
            rules = RULES.replace("= ssh-server\ndefault", "= reset after=2s\ndefault")
            self.rules = self.write("rules.ini", rules + mail)
            self.assertIn(found, self.explain("--text", "", "--from", "192.0.2.1"))
        # The default comes at once if no route needs a byte.
        at_once = "at once, before any byte: default, to 127.0.0.1:25\n"
        self.assertEqual(self.of_listener("first = server", "default = 127.0.0.1:25"), at_once)
        decision = self.explain_json("--text", "SSH-2.0-", "--from", "192.0.2.1")["decision"]
        self.assertEqual((decision["at"], decision["by"]), (0, "default"))
        plain = "[listen a]\nendpoint = :1\ndefault = 127.0.0.1:25\n"
        ssh = "[route ssh]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = close\n"
        for rules, found in (
            (plain, at_once),
            (plain + ssh, at_once),
            (plain + "silent = reset\n", "no byte: undecided"),
            (plain + ssh.replace("10.0.0.0/8", "192.0.2.0/24"), "no byte: undecided"),
            (plain.replace("127.0.0.1:25", "reset") + ssh, "no byte: undecided"),
            (plain + ssh.replace("from = 10.0.0.0/8", "dry_run = yes"), "no byte: undecided"),
            # Whether units have routes for it or not.
            (plain + "routes_from = *\n", "no byte: undecided"),
        ):
            self.rules = self.write("rules.ini", rules)
            out = self.explain("--text", "", "--from", "192.0.2.1").partition("\ndecision  ")[2]
            self.assertEqual(out[: len(found)], found)

    def test_bytes_that_are_given(self) -> None:
        # The last no decides for the default.
        for data, at in (("00", "1: default, reset"), ("4849", "2: route web, to 127.0.0.1:8080")):
            self.assertIn(f"\ndecision  at byte {at}\n", self.explain("--hex", data))
        change_constants(self, sys, stdin=io.TextIOWrapper(io.BytesIO(b"SSH-")))
        self.assertIn("4 bytes: SSH-", self.explain("--file", "-"))
        # Undecided, with the outcome at the deadline.
        found = self.explain_json("--text", "H")
        self.assertIsNone(found["decision"])
        leads: dict[str, Any] = {
            "at": None, "after": 3.0, "by": "default", "route": None, "to": "reset", "servers": [],
            "text": "default, reset",
        }  # fmt: skip
        self.assertEqual(found["at_deadline"], leads)
        ssh, web, inside = found["routes"]
        says = [route["says"] for route in (ssh, web, inside, *inside["lines"])]
        self.assertEqual(says, ["no", "undecided", "not asked", "not asked"])
        self.assertEqual((web["needs_up_to"], inside["excluded_by"]), (32768, "from"))
        # A route with `dry_run` decides nothing.
        self.rules.write_text(RULES.replace("[route ssh]", "[route ssh]\ndry_run = yes"))
        said = "match at byte 4; dry_run, so it decides nothing"
        self.assertIn(said, self.explain("--text", "SSH-"))
        self.assertTrue(self.explain_json("--text", "SSH-")["routes"][0]["dry_run"])
        # A matcher that raises is a no.
        text = "[listen a]\nendpoint = :1\n[route x]\nmatch = broken\nbackend = close\n"
        self.rules.write_text(text)
        rules = load(self.rules, {"broken": BrokenMatcher()})
        self.patch(explain, "load", lambda *_, **__: rules)
        out = self.explain("--text", "x")
        self.assertIn("no at byte 1: its matcher raised ZeroDivisionError: oh\n", out)
        self.flushLoggedErrors(ZeroDivisionError)
        # A protocol in this process has no servers.
        self.assertEqual(TracedOutcome("route", "a", InProcess("Site", Factory())).servers, [])

    def test_colours_on_a_terminal_if_possible_and_wanted(self) -> None:
        arguments = ("explain", self.rules, "--text", "SSH-2.0-x\x1b[2J")
        plain = self.run_main(*arguments)[1]
        change_environment(self, TERM="xterm", COLUMNS="100", NO_COLOR="")
        coloured = self.told(0, self.run_main(*arguments, out=Terminal()))
        self.assertRegex(coloured, r"\x1b\[1;32m>")
        change_environment(self, NO_COLOR="1")
        self.assertNotIn("\x1b[3", self.run_main(*arguments, out=Terminal())[1])
        lack_modules(self, "rich.console")
        self.assertEqual(self.run_main(*arguments, out=Terminal())[1], plain)
        self.assertNotIn("\x1b", plain)

    def test_document(self) -> None:
        document = json.loads(self.explain("--json", "--text", "SSH-2.0-x ", "--from", "10.0.0.1"))
        (stream,) = document.pop("streams")
        self.assertEqual(document, {"rules": str(self.rules)})
        (found,) = stream.pop("listeners")
        self.assertEqual(stream, {
            "client": "10.0.0.1", "server": None, "bytes": 10, "datagrams": None, "gap": False,
            "late": False, "server_first": False,
        })  # fmt: skip
        routes = found.pop("routes")
        moment = datetime.fromisoformat(found.pop("time")).timestamp()
        self.assertLess(abs(moment - time.time()), 60)
        self.assertEqual(found, {
            "listener": "public", "from": "10.0.0.1", "during": False, "bytes": 10,
            "first": b"SSH-2.0-x ".hex(), "peek_limit": 32768,
            "decision": {
                "at": 4, "by": "route", "route": "ssh", "to": "ssh-server",
                "servers": ["127.0.0.1:22", "127.0.0.1:23"],
                "text": "route ssh, to backend ssh-server (127.0.0.1:22, 127.0.0.1:23)",
            },
            "at_deadline": None,
            "silence": {
                "at": None, "after": 3.0, "by": "silent", "route": "silent", "to": "ssh-server",
                "servers": ["127.0.0.1:22", "127.0.0.1:23"],
                "text": "route silent, to backend ssh-server (127.0.0.1:22, 127.0.0.1:23)",
            },
            "answers": [],
            "facts": {"software": "x"},
        })  # fmt: skip
        answer = {"says": "match", "at": 4, "needs_up_to": None, "error": None}
        self.assertEqual(routes[0], {
            "route": "ssh", **answer, "excluded_by": None, "dry_run": False,
            "lines": [{"match": "ssh", **answer}],
        })  # fmt: skip
        self.assertEqual([len(route["lines"]) for route in routes], [1, 2, 1])

    def test_one_block_for_each_listener(self) -> None:
        denied = self.explain_json("--text", "x", "--from", "203.0.113.1")["decision"]
        self.assertEqual((denied["by"], denied["at"], denied["to"]), ("denied", 0, "close"))
        under = re.sub(r"(\[route \w+\]\n)", r"\1under = public\n", RULES)
        self.rules.write_text(f"{under}[listen other]\nendpoint = :80\n")
        both = self.explain("--text", "x")
        self.assertRegex(both, r"(?s)\Alistener public: .*\n\nlistener other: ")
        other = "1 byte: x\n\nthere is no route\n\ndecision  at byte 1: default, close\n"
        told = self.explain("--text", "x", "--listener", "other")
        self.assertEqual(told, f"listener other: {other}")

    def test_wrong_input_and_usage(self) -> None:
        # One line, and exit code 1.
        no_listener = "there is no [listen pubic]; did you mean 'public'? (there are public)"
        for arguments, message in (
            (("--hex", "5"), "--hex: '5' is not hex; write pairs"),
            (("--text", r"\q"), r"--text: \q is not an escape; there are"),
            (("--text", "\udcff"), r"--text: is not valid UTF-8; write such bytes as \xNN"),
            (("--file", "no/such"), "no/such cannot be read: No such file or directory"),
            (("--text", "x", "--listener", "pubic"), no_listener),
        ):
            err = self.unexplained(*arguments)
            self.assertTrue(err.startswith(f"txmux: {message}"), err)
            self.assertEqual(err.count("\n"), 1)
        # Exit code 2 for wrong usage.
        how = "txmux: give the client's first bytes by --text, --hex, --file or --pcap (--file -"
        self.assertIn(how, self.unexplained(code=2))
        for more in (("--hex", "00"), ("--from", "here")):
            self.assertIn("usage: txmux explain", self.unexplained("--text", "x", *more, code=2))
        # Exit code 78 for errors of the rules.
        self.rules.write_text("[listen a]\nendpoint = 443\npeek_limti = 5\n")
        err = self.told(78, self.run_main("explain", self.rules, "--text", "x"))
        self.assertEqual(err.count(f"{self.rules}:"), 2)

    def test_tls_client_by_what_it_asks_for(self) -> None:
        routes = "".join(
            f"[route {name}]\nmatch = tls {options}\nbackend = close\n"
            for name, options in (("h2", "sni=a.example alpn=h2"), ("old", "alpn=none"), ("a", "sni=a.example"))
        )  # fmt: skip
        self.rules.write_text(f"[listen public]\nendpoint = :443\n{routes}")
        for options, decision in {
            ("--sni", "a.example", "--alpn", "http/1.1, h2"): "route h2",
            ("--sni", "a.example", "--alpn", "http/1.1"): "route a",
            ("--sni", "a.example"): "route old",
            ("--alpn", "h2"): "default",
        }.items():
            out = self.told(0, self.run_main("explain", self.rules, *options))
            self.assertRegex(out, rf"\ndecision  at byte \d+: {decision}, ")
        no_bytes = "in place of bytes; leave them out, or --text"
        no_client, no_name = "--sni, --alpn: no client can say this: ", "is not a protocol's name: "
        for wrong, message in (
            ("--sni a --text x", f"--sni and --alpn are {no_bytes}"),
            ("--sni .", no_client),
            ("--alpn ,", f"{no_client}'' {no_name}"),
            ("--alpn h2,é", f"{no_client}'é' {no_name}write 1 to 255 ASCII characters, as h2\n"),
            (f"--sni {'a.' * 200}", f"{no_client}'a."),
        ):
            code, out, err = self.run_main("explain", self.rules, *wrong.split())
            self.assertEqual((code > 0, out), (True, ""))
            self.assertTrue(err.startswith(f"txmux: {message}"), err)
        of_udp = "[listen u]\nendpoint = udp::443\n[route q]\nmatch = quic\nbackend = udp:h:1\n"
        self.rules.write_text(of_udp)
        _, _, err = self.run_main("explain", self.rules, "--sni", "a")
        self.assertIn("are for listeners of TCP", err)


@attrs.frozen
class Broken:
    longest: int = 3

    def __call__(self, peeked: Peeked) -> Verdict:
        raise ZeroDivisionError("oh")


@implementer(IProtocolMatcher)
class BrokenMatcher:
    name = "broken"
    summary = "for tests"
    options = ()

    def predicate(self, options: object) -> Predicate:
        return Broken()


class TimeTests(CommandTestCase):
    text = RULES

    def setUp(self) -> None:
        super().setUp()
        (self.folder / "a.pem").touch()
        self.rules.write_text(
            "[listen public]\nendpoint = :443\n"
            "[route office]\nmatch = ssh\nduring = mon-fri 08:00-18:00 UTC\nbackend = close\n"
            "[route inside]\nmatch = tls\nterminate_tls = a.pem\nbackend = reset\n"
        )

    def test_time_and_tls(self) -> None:
        # The given time counts.
        friday = self.explain("--text", "SSH-2.0-x ", "--at", "2026-11-20T12:00+00:00")
        self.assertRegex(friday, r"10 bytes on \w+ 2026-11-\d\d \d\d:\d\d \S+: SSH-2.0-x")
        self.assertIn("at byte 4: route office, close", friday)
        saturday = self.explain("--text", "SSH-2.0-x ", "--at", "2026-11-21T12:00+00:00")
        self.assertRegex(saturday, "office +ssh +not asked: 'during' does not name the time")
        found = self.explain_json("--text", "SSH-2.0-x ", "--at", "2026-11-21T12:00+00:00")
        self.assertEqual(found["routes"][0]["excluded_by"], "during")
        moments = map(datetime.fromisoformat, (found["time"], "2026-11-21T12:00+00:00"))
        self.assertEqual(len({*moments}), 1)
        err = self.unexplained("--text", "x", "--at", "noon", code=2)
        self.assertIn("'noon' is not a time; write one as 2026-11-20T14:30", err)
        # A route that ends TLS.
        hello = bytes.fromhex("1603010005010000010000").hex()
        leads_inside = "route inside, which ends TLS; the routes under it decide on what is inside"
        self.assertIn(leads_inside, self.explain("--hex", hello))
        found = self.explain_json("--hex", hello)
        leads = found["decision"] or found["at_deadline"]
        self.assertEqual((leads["route"], leads["to"], leads["servers"]), ("inside", None, []))


class DestinationTests(CommandTestCase):
    text = (
        "[listen a]\nendpoint = :1\n[route web]\nmatch = http\nbackend = b\n"
        "[backend b]\nserver = {host}:80\nallow_names = *.test\n"
    )

    def test_name(self) -> None:
        for fields, named in (
            ("Host: WWW.test:80\r\n", ": www.test"),
            ("Host: a.example\r\n", ": a.example, name-denied"),
            ("", ": no-name"),
        ):
            told = self.explain("--text", rf"GET / HTTP/1.1\r\n{fields}\r\n")
            self.assertIn(f"route web, to backend b ({{host}}:80){named}\n", told)
        self.assertIn("undecided", self.explain("--text", r"GET / HTTP/1.1\r\n"))
        # One that is handed over; in JSON, it has no server.
        self.rules.write_text(
            "[listen a]\nendpoint = :1\n[route ssh]\nmatch = ssh\nbackend = handover:/run/x.sock\n"
        )
        told = self.explain("--text", "SSH-")
        self.assertIn("decision  at byte 4: route ssh, to handover:/run/x.sock\n", told)
        decision = self.explain_json("--text", "SSH-")["decision"]
        self.assertEqual((decision["to"], decision["servers"]), ("handover:/run/x.sock", []))
