import ipaddress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Backend, Check, Ejection, Refusal, Resolve, Server, ServerTLS
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import name_server


class MeaningTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        backend = cases.backend()
        self.assertEqual(backend, Backend("b", (Server("10.0.0.1:80", "tcp", "10.0.0.1", 80),)))
        self.assertEqual((backend.balance, backend.source), ("round-robin", ()))
        self.assertEqual((backend.check, backend.eject), (None, Ejection(3, 10.0, 10.0)))
        self.assertEqual((backend.resolve, backend.tls), (Resolve(), None))
        self.assertEqual((backend.max_connections, backend.queue), (0, 0))
        self.assertEqual((backend.upload_rate, backend.download_rate), (None, None))
        self.assertEqual(backend.fallback, Refusal.CLOSE)

    def test_all_keys(self) -> None:
        found = cases.backend(
            "balance = source-hash\nsource = 192.0.2.1, 192.0.2.2\n  2001:DB8::1\n"
            "check = tcp\neject = off\nresolve = 1m\n"
            "tls = yes\ntls_name = www.example.com\ntls_ca = ca.pem\n"
            "tls_client_certificate = client.pem\n  /etc/key.pem\nalpn = h2, http/1.1\n"
            "max_connections = 7\nend_on_down = backup\nqueue = 3\n"
            "upload_rate = 10MiB/s\ndownload_rate = 500/s\nfallback = reset\nmax_duration = none"
        )
        self.assertEqual(
            found,
            Backend(
                "b",
                found.servers,
                balance="source-hash",
                source=("192.0.2.1", "192.0.2.2", "2001:db8::1"),
                check=Check("tcp"),
                eject=None,
                resolve=Resolve(60.0),
                tls=ServerTLS(
                    "www.example.com",
                    Path("etc/ca.pem"),
                    (Path("etc/client.pem"), Path("/etc/key.pem")),
                    ("h2", "http/1.1"),
                ),
                max_connections=7,
                end_on_down="backup",
                queue=3,
                upload_rate=10 * 1024**2,
                download_rate=500,
                fallback=Refusal.RESET,
                max_duration=None,
            ),
        )

    def test_values(self) -> None:
        """`source = client` is for both families; ports of a source may be a range."""
        own, six = "192.0.2.1:40000-50000, 192.0.2.2:40000, 192.0.2.3", "[2001:db8::1]:1-65535"
        tlvs = "authority, alpn, unique-id, crc32c, ssl"
        for text, servers, key, value in (
            ("source = client", "10.0.0.1:80\n  [::1]:80\n  web:80", "source", ("client",)),
            (f"source = {own}", "10.0.0.1:80", "source", tuple(own.split(", "))),
            (f"source = {six}", "[2001:db8::9]:1", "source", (six,)),
            ("", "10.0.0.1:80", "hold", 0.0), ("", "10.0.0.1:80", "hold_limit", 1000), ("", "10.0.0.1:80", "more", {}),
            ("hold = 1m", "10.0.0.1:80", "hold", 60.0), ("hold = 1m\nhold_limit = 7", "10.0.0.1:80", "hold_limit", 7),
            (f"proxy_protocol = v2\nproxy_tlvs = {tlvs}", "10.0.0.1:80", "proxy_tlvs", tuple(tlvs.split(", "))),
            ("eject = off", "{local}:443", "eject", None), ("tls = no", "10.0.0.1:80", "tls", None),
        ):  # fmt: skip
            self.assertEqual(getattr(cases.backend(text, servers=servers), key), value, text)
        self.assertEqual(len(cases.backend(servers="{local}:443\n  {local}:444").servers), 2)
        cases.backend("tls = yes\ntls_name = x", servers="unix:/run/x.sock\n  tcp:h:1:timeout=3")

    def test_resolvers_with_those_of_txmux_as_default(self) -> None:
        rules = cases.read_backend(
            "resolvers = 10.0.0.53, ::1, [fd00::53],10.0.0.53:53\n  [fd00::53]:8600\n"
            "[backend other]\nserver = other.example.com:1\nfallback = short.example.com:1\n"
            "[txmux]\nresolvers = 127.0.0.1:8600"
        )
        self.assertEqual(
            rules.backends["b"].resolvers,
            (("10.0.0.53", 53), ("::1", 53), ("fd00::53", 53), ("fd00::53", 8600)),
        )
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

    def test_eject_in_any_order_with_defaults(self) -> None:
        for text, expected in {
            "failures=1 within=2s for=3s": Ejection(1, 2.0, 3.0),
            "for=1m failures=5": Ejection(5, 10.0, 60.0),
            "within=1s": Ejection(3, 1.0, 10.0),
            "unanswered=2 after=20s": Ejection(unanswered=2, after=20.0),
            "unanswered=0": Ejection(unanswered=0),
        }.items():
            self.assertEqual(cases.backend(f"eject = {text}").eject, expected)


class FallbackTests(SynchronousTestCase):
    def test_outcomes_also_of_a_later_backend(self) -> None:
        c = "[backend c]\nserver = 10.0.0.3:80\nfallback = unix:/x"
        rules = cases.read_backend(f"fallback = c\n{c}")
        self.assertEqual(list(rules.backends), ["b", "c"])
        fallback = rules.backends["b"].fallback
        self.assertIs(fallback, rules.backends["c"])
        assert isinstance(fallback, Backend)
        self.assertEqual(
            fallback.fallback, Backend("unix:/x", (Server("unix:/x", "unix", path="/x"),))
        )
        self.assertEqual(
            [found.text for found in rules.servers() if found.kind == "unix"], ["unix:/x"]
        )
        self.assertEqual(lint(rules), [])

    def test_order_of_the_file(self) -> None:
        names = "zyxwv"
        text = "".join(
            f"[backend {n}]\nserver = h:1\nfallback = {m}\n"
            for n, m in zip(names, names[1:] + "b", strict=False)
        )
        self.assertEqual(list(cases.read_backend(text).backends), ["b", *names])

    def test_too_long_a_chain(self) -> None:
        numbers = [f"n{number}" for number in range(25)]
        sections = [
            f"[backend {one}]\nserver = h:1\nfallback = {other}\n"
            for one, other in zip(numbers, [*numbers[1:], "reset"], strict=True)
        ]
        for text in ("".join(sections), "".join(reversed(sections))):
            (complaint, *_) = cases.complaints(text, cases.read_backend)
            self.assertIn("is too long a chain: over 20 backends", complaint)
        cases.read_backend("".join(sections[10:]))
