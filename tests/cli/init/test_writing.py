from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.init.test_listening import is_plain
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
    st.ip_addresses().filter(is_plain),
    st.integers(1, 65535) | st.sampled_from([*services.PORTS]),
    st.sampled_from(_PROGRAMS),
)


_HTTP, _TLS = (Probed(answer=answer) for answer in (b"HTTP/1.1 200 OK", b"\x16\x03\x03"))
_PROBED = st.builds(
    Probed, st.binary(max_size=8), st.sampled_from((b"", b"HTTP/1.1", b"\x16\x03", b"-ERR ", b"* OK")), st.booleans()
)  # fmt: skip


class RecogniseTests(SynchronousTestCase):
    def test_known_program_and_ports_of_web_servers(self) -> None:
        for listening, name in (
            (at(9, "sshd"), "SSH"), (at(80, "redis-server"), "redis"), (at(8443, "nginx"), "TLS"),
            (at(1234, "nginx"), "HTTP"),
        ):  # fmt: skip
            service = recognise(listening)
            assert service.kind is not None
            self.assertEqual((service.kind.name, service.by), (name, "program"))
            self.assertEqual(service.is_guess, listening.program == "nginx")

    def test_usual_port_of_an_unknown_program(self) -> None:
        service = recognise(at(5432, "python3"))
        assert service.kind is not None
        self.assertEqual((service.kind.name, service.by), ("postgres", "port"))
        self.assertTrue(service.is_guess)
        self.assertIsNone(recognise(at(5431, "python3")).kind)

    def test_greeting_comes_before_program_and_port(self) -> None:
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
            service = recognise(at(443, "nginx"), Probed(said))
            assert service.kind is not None
            self.assertEqual((service.kind.name, service.by), (name, "greeting"))

    def test_answer_comes_before_program_and_port(self) -> None:
        for said, name in (
            (b"\x16\x03\x03\0\x7a", "TLS"), (b"\x15\x03\x01\0\x02\x02\x28", "TLS"),
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"), (b"ERROR\r\n", "memcached"),
            (b"220 mail.example.com ESMTP Postfix\r\n", "SMTP"),
        ):  # fmt: skip
            for header in (False, True):
                service = recognise(at(5432, "nginx"), Probed(b"", said, header))
                assert service.kind is not None
                self.assertEqual((service.kind.name, service.by), (name, "answer"))
                self.assertEqual((service.is_guess, service.has_header), (False, header))
        self.assertTrue(recognise(at(80, "nginx"), Probed(b"", b"what?")).is_guess)
        self.assertFalse(recognise(at(5432), Probed(is_usual=True)).is_guess)

    def test_matchers_need_no_option(self) -> None:
        kinds = {*services.PROGRAMS.values(), *services.PORTS.values()}
        kinds |= {kind for _, kind in services.GREETINGS}
        for name in {kind.matcher for kind in kinds} - {""}:
            installed_matchers()[name].predicate({})


class WritingTests(SynchronousTestCase):
    def test_routes_in_order_and_second_servers_as_suggestions(self) -> None:
        text = written(
            *map(recognise, (at(22, "sshd"), at(6379, "redis-server"))),
            *(recognise(at(port, "nginx"), _HTTP) for port in (8080, 8081)),
        )
        rules = parse(text, "x")
        self.assertEqual([route.name for route in rules.routes], ["ssh", "http", "redis"])
        self.assertIn("\n# [route http-8081]\n# match   = http host=other.example.com\n", text)

    def test_local_servers_stay_local_and_others_for_private_networks(self) -> None:
        rules = parse(
            written(
                *map(
                    recognise,
                    (
                        at(22, "sshd", "127.0.0.1"), at(6379, "redis-server", "127.0.0.1"),
                        at(5432, "postgres"), at(3306, "mariadbd", "127.0.0.1"),
                    ),
                )
            ),
            "x",
        )  # fmt: skip
        ends = {route.name: route.clients for route in rules.routes}
        (silence,) = rules.listeners[0].silent
        ends["silent"] = silence.clients
        outside, near, here = map(ip_address, ("192.0.2.1", "192.168.1.1", "127.0.0.1"))
        for name, admitted in (
            ("ssh", [outside, near, here]), ("redis", [here]), ("postgres", [near, here]),
            ("silent", [here]),
        ):  # fmt: skip
            got = [one for one in (outside, near, here) if ends[name].serves(one)]
            self.assertEqual(got, admitted, name)

    def test_unrecognised_server_is_a_suggestion(self) -> None:
        text = written(recognise(at(9999, "python3", "127.0.0.1")))
        self.assertIn(
            "\n# python3 at 127.0.0.1:9999: not recognised.\n# [route service-9999]\n", text
        )
        self.assertEqual(parse(text, "x").routes, ())
        self.assertIn("--probe", text.splitlines()[-1])
        for found in ([], [recognise(at(22, "sshd"))]):
            self.assertNotIn("--probe", written(*found))

    def test_guess_is_a_comment(self) -> None:
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

    def test_each_server_behind_a_header_has_a_backend_also_if_suggested(self) -> None:
        hello = Probed(b"", b"\x16\x03\x03", has_header=True)
        mail = Probed(b"", b"220 a.example ESMTP\r\n", has_header=True)
        text = written(
            *(recognise(at(port, "nginx"), hello) for port in (443, 8443)), recognise(at(25), mail)
        )
        rules = parse(text, "x")
        made = {name: its.proxy_protocol for name, its in rules.backends.items()}
        self.assertEqual(made, {"tls-443": "v2", "server-25": "v2"})
        (route,), (silence,) = rules.routes, rules.listeners[0].silent
        self.assertEqual(route.outcome, rules.backends["tls-443"])
        self.assertEqual(silence.outcome, rules.backends["server-25"])
        self.assertIn("\n# backend = tls-8443\n", text)
        self.assertIn(
            "\n# [backend tls-8443]\n# server         = 127.0.0.1:8443\n# proxy_protocol = v2\n",
            text,
        )

    def test_suggestions_are_valid_rules(self) -> None:
        text = written(
            *(recognise(at(port, "nginx"), _HTTP) for port in (80, 81)),
            *(recognise(at(port, "nginx"), _TLS) for port in (443, 8443)),
            recognise(at(9999)),
        )
        lines = text.splitlines()
        begin = next(number for number, line in enumerate(lines) if line.startswith("# [route"))
        bare = [
            line[2:] if line.startswith(("# [", "# match", "# backend")) else line
            for line in lines[begin:]
        ]
        rules = parse("\n".join([*lines[:begin], *bare]), "x")
        self.assertEqual(
            [route.name for route in rules.routes],
            ["tls", "http", "service-9999", "tls-8443", "http-81"],
        )

    @given(st.lists(st.tuples(_LISTENING, _PROBED), max_size=8), st.booleans())
    def test_no_errors(self, found: list[tuple[Listening, Probed]], probed: bool) -> None:  # noqa: FBT001
        by_port = {one.port: (one, said) for one, said in found}
        where, why = endpoint([one for one, _ in by_port.values()], first_unprivileged=1024)
        found_services = [recognise(one, said) for one, said in by_port.values()]
        parse(rules_text(found_services, where, why, probed=probed), "x")


class EndpointTests(SynchronousTestCase):
    def test_first_free_and_usable_port_with_comments(self) -> None:
        self.assertEqual(endpoint([], first_unprivileged=1), (":443", []))
        where, why = endpoint([], first_unprivileged=1024)
        self.assertEqual(where, ":8443")
        self.assertIn("needs root, or CAP_NET_BIND_SERVICE", " ".join(why))
        where, why = endpoint([at(443, "nginx"), at(8443)], first_unprivileged=1)
        self.assertEqual(where, ":4443")
        self.assertIn("is taken by nginx", " ".join(why))
        where, why = endpoint([at(443, "txmux")], first_unprivileged=1)
        self.assertEqual(where, ":8443")
        self.assertIn("is taken by a txmux that runs already", " ".join(why))

    def test_any_port_if_all_are_taken(self) -> None:
        taken = [at(port) for port in (443, 8443, 4443, 10443, 20443)]
        self.assertEqual(endpoint(taken, first_unprivileged=1)[0], ":0")
