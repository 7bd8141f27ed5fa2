import ipaddress
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Backend, Check, Ejection, Refusal, Resolve, Server, ServerTLS
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import name_server


class BackendTests(SynchronousTestCase):
    def test_values(self) -> None:
        """`source = client` is for both families; ports of a source may be a range."""
        own, six = "192.0.2.1:40000-50000, 192.0.2.2:40000, 192.0.2.3", "[2001:db8::1]:1-65535"
        tlvs = "authority, alpn, unique-id, crc32c, ssl"
        tls = "tls = yes\ntls_name = www.example.com\ntls_ca = ca.pem\ntls_client_certificate = client.pem\n  /etc/key.pem\nalpn = h2, http/1.1"
        files = Path("etc/client.pem"), Path("/etc/key.pem")
        ends = ServerTLS("www.example.com", Path("etc/ca.pem"), files, ("h2", "http/1.1"))
        one = "10.0.0.1:80"
        rows: tuple[tuple[str, str, str, object], ...] = (
            ("", one, "balance", "round-robin"), ("balance = source-hash", one, "balance", "source-hash"),
            ("", one, "source", ()), ("source = client", f"{one}\n  [::1]:80\n  web:80", "source", ("client",)),
            ("source = 192.0.2.1, 192.0.2.2\n  2001:DB8::1", one, "source", ("192.0.2.1", "192.0.2.2", "2001:db8::1")),
            (f"source = {own}", one, "source", tuple(own.split(", "))),
            (f"source = {six}", "[2001:db8::9]:1", "source", (six,)),
            ("", one, "check", None), ("check = tcp", one, "check", Check("tcp")),
            ("", one, "eject", Ejection(3, 10.0, 10.0)), ("eject = off", "{local}:443", "eject", None),
            ("eject = failures=1 within=2s for=3s", one, "eject", Ejection(1, 2.0, 3.0)),
            ("eject = for=1m failures=5", one, "eject", Ejection(5, 10.0, 60.0)),
            ("eject = within=1s", one, "eject", Ejection(3, 1.0, 10.0)),
            ("eject = unanswered=2 after=20s", one, "eject", Ejection(unanswered=2, after=20.0)),
            ("eject = unanswered=0", one, "eject", Ejection(unanswered=0)),
            ("", one, "resolve", Resolve()), ("resolve = 1m", one, "resolve", Resolve(60.0)),
            ("", one, "tls", None), ("tls = no", one, "tls", None), (tls, one, "tls", ends),
            ("", one, "max_connections", 0), ("max_connections = 7", one, "max_connections", 7),
            ("end_on_down = backup", one, "end_on_down", "backup"),
            ("", one, "queue", 0), ("max_connections = 7\nqueue = 3", one, "queue", 3),
            ("", one, "upload_rate", None), ("upload_rate = 10MiB/s", one, "upload_rate", 10 * 1024**2),
            ("", one, "download_rate", None), ("download_rate = 500/s", one, "download_rate", 500),
            ("", one, "fallback", Refusal.CLOSE), ("fallback = reset", one, "fallback", Refusal.RESET),
            ("max_duration = none", one, "max_duration", None), ("", one, "more", {}),
            ("", one, "hold", 0.0), ("hold = 1m", one, "hold", 60.0),
            ("", one, "hold_limit", 1000), ("hold = 1m\nhold_limit = 7", one, "hold_limit", 7),
            (f"proxy_protocol = v2\nproxy_tlvs = {tlvs}", one, "proxy_tlvs", tuple(tlvs.split(", "))),
        )  # fmt: skip
        for text, servers, key, value in rows:
            self.assertEqual(getattr(cases.backend(text, servers=servers), key), value, text)
        # In one section, no key changes what another one says.
        of_one = [row for row in rows if row[1] == one and row[0].startswith(row[2])]
        last: dict[str, Any] = {key: (text, value) for text, _, key, value in of_one}
        every = cases.backend("\n".join(text for text, _ in last.values()))
        expected = {key: value for key, (_, value) in last.items()}
        self.assertEqual(every, attrs.evolve(cases.backend(), **expected))
        self.assertEqual(cases.backend(), Backend("b", (Server(one, "tcp", "10.0.0.1", 80),)))
        self.assertEqual(len(cases.backend(servers="{local}:443\n  {local}:444").servers), 2)
        cases.backend("tls = yes\ntls_name = x", servers="unix:/run/x.sock\n  tcp:h:1:timeout=3")

    def test_resolvers_with_those_of_txmux_as_default(self) -> None:
        rules = cases.read_backend(
            "resolvers = 10.0.0.53, ::1, [fd00::53],10.0.0.53:53\n  [fd00::53]:8600\n"
            "[backend other]\nserver = other.example.com:1\nfallback = short.example.com:1\n"
            "[txmux]\nresolvers = 127.0.0.1:8600"
        )
        expected = (("10.0.0.53", 53), ("::1", 53), ("fd00::53", 53), ("fd00::53", 8600))
        self.assertEqual(rules.backends["b"].resolvers, expected)
        other = rules.backends["other"]
        self.assertEqual(other.resolvers, (("127.0.0.1", 8600),))
        self.assertEqual(getattr(other.fallback, "resolvers", None), other.resolvers)

    @given(st.text(max_size=30))
    def test_any_resolver_is_an_address_or_an_error(self, text: str) -> None:
        try:
            host, port = name_server(text)
        except InvalidValueError as error:
            self.assertTrue(error.messages)
        else:
            ipaddress.ip_address(host)
            self.assertIn(port, range(1, 65536))

    def test_fallbacks_follow_the_file_in_short_chains(self) -> None:
        c = "[backend c]\nserver = 10.0.0.3:80\nfallback = unix:/x"
        rules = cases.read_backend(f"fallback = c\n{c}")
        self.assertEqual(list(rules.backends), ["b", "c"])
        fallback = rules.backends["b"].fallback
        self.assertIs(fallback, rules.backends["c"])
        assert isinstance(fallback, Backend)
        expected = Backend("unix:/x", (Server("unix:/x", "unix", path="/x"),))
        self.assertEqual(fallback.fallback, expected)
        told = [found.text for found in rules.servers() if found.kind == "unix"]
        self.assertEqual((told, lint(rules)), (["unix:/x"], []))
        names = "zyxwv"
        backend = "[backend {}]\nserver = h:1\nfallback = {}\n".format
        text = "".join(map(backend, names, names[1:] + "b"))
        self.assertEqual(list(cases.read_backend(text).backends), ["b", *names])
        numbers = [f"n{number}" for number in range(25)]
        sections = [*map(backend, numbers, [*numbers[1:], "reset"])]
        for text in ("".join(sections), "".join(reversed(sections))):
            (complaint, *_) = cases.complaints(text, cases.read_backend)
            self.assertIn("is too long a chain: over 20 backends", complaint)
        cases.read_backend("".join(sections[10:]))
