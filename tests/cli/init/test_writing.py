import re
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.init.test_listening import is_unambiguous
from txmux.cli.init import services
from txmux.cli.init.services import FoundService, Listening, Probed, recognise
from txmux.cli.init.writing import endpoint, rules_text
from txmux.detection.registry import installed_matchers
from txmux.rules.reading.parser import parse


def at(port: int, program: str = "", address: str = "0.0.0.0") -> Listening:
    return Listening(ip_address(address), port, program)


def written(*found: FoundService) -> str:
    return rules_text(found, ":4443", [], probed=False)


_PROGRAMS = ["", "python3", *services.PROGRAMS, *services.WEB]
_LISTENING = st.builds(
    Listening,
    st.ip_addresses().filter(is_unambiguous),
    st.integers(1, 65535) | st.sampled_from([*services.PORTS]),
    st.sampled_from(_PROGRAMS),
)


_HTTP, _TLS = (Probed(answer=answer) for answer in (b"HTTP/1.1 200 OK", b"\x16\x03\x03"))
_PROBED = st.builds(
    Probed, st.binary(max_size=8), st.sampled_from((b"", b"HTTP/1.1", b"\x16\x03", b"-ERR ", b"* OK")), st.booleans()
)  # fmt: skip


class WritingTests(SynchronousTestCase):
    def test_suggestions(self) -> None:
        """Second servers, guesses and what is not recognised are comments."""
        text = written(
            *map(recognise, (at(22, "sshd"), at(6379, "redis-server"))),
            *(recognise(at(port, "nginx"), _HTTP) for port in (8080, 8081)),
        )
        rules = parse(text, "x")
        self.assertEqual([route.name for route in rules.routes], ["ssh", "http", "redis"])
        self.assertIn("\n# [route http-8081]\n# match   = http host=other.example.com\n", text)
        text = written(recognise(at(9999, "python3", "127.0.0.1")))
        suggested = "\n# python3 at 127.0.0.1:9999: not recognised.\n# [route service-9999]\n"
        self.assertIn(suggested, text)
        self.assertEqual(parse(text, "x").routes, ())
        self.assertIn("--probe", text.splitlines()[-1])
        for found in ([], [recognise(at(22, "sshd"))]):
            self.assertNotIn("--probe", written(*found))
        text = written(*map(recognise, (at(80, "nginx"), at(5432), at(25))))
        self.assertEqual(parse(text, "x").routes, ())
        self.assertIn("\nsilent   = close\n", text)
        for line in (
            "# nginx at 0.0.0.0:80: perhaps HTTP.",
            "# [route http-80]",
            "# a program at 0.0.0.0:5432: perhaps postgres, by its port.",
            "# silent = 127.0.0.1:25 from=192.0.2.0/24",
        ):
            self.assertIn(f"\n{line}\n", text)
        # They are valid rules.
        text = written(
            *(recognise(at(port, "nginx"), _HTTP) for port in (80, 81)),
            *(recognise(at(port, "nginx"), _TLS) for port in (443, 8443)),
            recognise(at(9999)),
        )
        lines = text.splitlines()
        begin = next(number for number, line in enumerate(lines) if line.startswith("# [route"))
        bare = [re.sub(r"^# (?=\[|match|backend)", "", line) for line in lines[begin:]]
        rules = parse("\n".join([*lines[:begin], *bare]), "x")
        names = [route.name for route in rules.routes]
        self.assertEqual(names, ["tls", "http", "service-9999", "tls-8443", "http-81"])

    def test_backends_and_clients(self) -> None:
        # Local servers stay local, and others are for private networks.
        here = (22, "sshd"), (6379, "redis-server"), (3306, "mariadbd")
        found = [*(at(*one, "127.0.0.1") for one in here), at(5432, "postgres")]
        rules = parse(written(*map(recognise, found)), "x")
        ends = {route.name: route.clients for route in rules.routes}
        (silence,) = rules.listeners[0].silent
        ends["silent"] = silence.clients
        clients = [*map(ip_address, ("192.0.2.1", "192.168.1.1", "127.0.0.1"))]
        for name, count in (("ssh", 3), ("redis", 1), ("postgres", 2), ("silent", 1)):
            got = [one for one in clients if ends[name].serves(one)]
            self.assertEqual(got, clients[-count:], name)
        # Each server behind a header has a backend, also if it is suggested.
        hello = Probed(b"", b"\x16\x03\x03", has_header=True)
        mail = Probed(b"", b"220 a.example ESMTP\r\n", has_header=True)
        both = (recognise(at(port, "nginx"), hello) for port in (443, 8443))
        text = written(*both, recognise(at(25), mail))
        rules = parse(text, "x")
        made = {name: its.proxy_protocol for name, its in rules.backends.items()}
        self.assertEqual(made, {"tls-443": "v2", "server-25": "v2"})
        (route,), (silence,) = rules.routes, rules.listeners[0].silent
        self.assertEqual(route.outcome, rules.backends["tls-443"])
        self.assertEqual(silence.outcome, rules.backends["server-25"])
        self.assertIn("\n# backend = tls-8443\n", text)
        section = "[backend tls-8443]\n# server         = 127.0.0.1:8443\n# proxy_protocol = v2\n"
        self.assertIn(f"\n# {section}", text)

    @given(st.lists(st.tuples(_LISTENING, _PROBED), max_size=8), st.booleans())
    def test_no_errors(self, found: list[tuple[Listening, Probed]], probed: bool) -> None:  # noqa: FBT001
        by_port = {one.port: (one, said) for one, said in found}
        where, why = endpoint([one for one, _ in by_port.values()], first_unprivileged=1024)
        found_services = [recognise(one, said) for one, said in by_port.values()]
        parse(rules_text(found_services, where, why, probed=probed), "x")

    def recognised(self, *found: Any) -> tuple[str, str, bool]:
        service = recognise(*found)
        assert service.kind is not None
        return service.kind.name, service.by, service.is_guess

    def test_program_then_usual_port(self) -> None:
        # What web servers are known by is a guess, and so is a port; another one says nothing.
        for port, program, name, by in (
            (9, "sshd", "SSH", "program"), (80, "redis-server", "redis", "program"),
            (8443, "nginx", "TLS", "program"), (1234, "nginx", "HTTP", "program"),
            (5432, "python3", "postgres", "port"),
        ):  # fmt: skip
            expected = name, by, program in {"nginx", "python3"}
            self.assertEqual(self.recognised(at(port, program)), expected)
        self.assertIsNone(recognise(at(5431, "python3")).kind)
        # Their matchers need no option.
        kinds = {*services.PROGRAMS.values(), *services.PORTS.values()}
        kinds |= {kind for _, kind in services.GREETINGS}
        for matcher in {kind.matcher for kind in kinds} - {""}:
            installed_matchers()[matcher].predicate({})

    def test_greeting_and_answer_come_before_program_and_port(self) -> None:
        for said, name in (
            (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
            (b"RFB 003.008\n", "VNC"),
            (b"220 mail.example.com ESMTP Postfix\r\n", "SMTP"),
            (b"220 (vsFTPd 3.0.3)\r\n", "FTP or SMTP"),
            (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "IMAP"),
            (b"+OK POP3 ready\r\n", "POP3"),
            (b"@RSYNCD: 31.0\n", "rsync"),
            (b"J\0\0\0\x0a8.0.36\0", "MySQL"),
            (b"\x01", "a protocol in which the server speaks first"),
        ):
            recognised = self.recognised(at(443, "nginx"), Probed(said))
            self.assertEqual(recognised[:2], (name, "greeting"))
        # So does an answer.
        for said, name in (
            (b"\x16\x03\x03\0\x7a", "TLS"), (b"\x15\x03\x01\0\x02\x02\x28", "TLS"),
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"), (b"ERROR\r\n", "memcached"),
            (b"220 mail.example.com ESMTP Postfix\r\n", "SMTP"),
        ):  # fmt: skip
            for header in (False, True):
                found = at(5432, "nginx"), Probed(b"", said, header)
                self.assertEqual(self.recognised(*found), (name, "answer", False))
                self.assertEqual(recognise(*found).has_header, header)
        self.assertTrue(recognise(at(80, "nginx"), Probed(b"", b"what?")).is_guess)
        self.assertFalse(recognise(at(5432), Probed(is_usual=True)).is_guess)

    def test_first_free_and_usable_port_with_comments(self) -> None:
        self.assertEqual(endpoint([], first_unprivileged=1), (":443", []))
        for taken, first, where, why in (
            ([], 1024, ":8443", "needs root, or CAP_NET_BIND_SERVICE"),
            ([at(443, "nginx"), at(8443)], 1, ":4443", "is taken by nginx"),
            ([at(443, "txmux")], 1, ":8443", "is taken by a txmux that runs already"),
            ([at(port) for port in (443, 8443, 4443, 10443, 20443)], 1, ":0", ""),
        ):
            found, comments = endpoint(taken, first_unprivileged=first)
            self.assertEqual(found, where)
            self.assertIn(why, " ".join(comments))
