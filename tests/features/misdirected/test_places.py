import contextlib
import ssl
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, KeyPair, PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import authority, free_port, make_folder, reactor
from tests.support.peers import listen_tls
from txmux.features.misdirected import FEATURE
from txmux.features.misdirected.places import names_of, with_name
from txmux.features.misdirected.servers import shared_by_servers
from txmux.rules.reading.parser import parse
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.cursor import MalformedError
from txmux.wire.hello.records import records, take_hello


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_HELLO, _WITHOUT = hello("a.example"), hello(None)


class PlacesTest(SynchronousTestCase):
    @given(st.text("abc.-", min_size=1, max_size=255), st.integers(40, 600))
    def test_all_but_the_name_stays(self, name: str, cut: int) -> None:
        """However long it is, and however the records were cut."""
        message, _ = take_hello(_HELLO)
        pieces = (message[at : at + cut] for at in range(0, len(message), cut))
        made = with_name(b"".join(records(one, b"\3\1") for one in pieces), name)
        found, own = parse_client_hello(made, None), parse_client_hello(_HELLO, None)
        self.assertEqual((found.sni, found.alpn), (name.removesuffix("."), ("h2",)))
        self.assertEqual((found.version, found.ja4()), (own.version, own.ja4()))
        self.assertEqual(with_name(made, "a.example"), _HELLO)
        self.assertEqual(with_name(_WITHOUT, name), _WITHOUT)  # it gets none

    def test_names_of_requests(self) -> None:
        path, host = (b":path", b"/"), (b"host", b"b.example")
        for fields, names in (
            ([(b":authority", b"A.Example.:8443"), path, host], ["a.example", "b.example"]),
            ([host, path, (b":authority", b"b.example:443"), host], ["b.example"]),
            ([path, host], ["b.example"]),
            ([(b":authority", b""), path, host], ["b.example"]),
            ([(b":authority", b"[::1]:443"), path], ["::1"]),
            ([(b":authority", b"a.example:22")], ()),  # of a tunnel
        ):
            self.assertEqual(names_of(fields), names)
        for name in (
            b"a" * 256, b"", b"x@b.example", b"a.example:443@b.example", b"a.example b.example",
            b"a.example,b.example", b"%61.example", b"\xe4.example", b"b.example/", b"[::1",
        ):  # fmt: skip
            with self.subTest(name):
                self.assertRaises(MalformedError, names_of, [(b":authority", name), path])


_WIDE = "*.site.example"
_RULES = """
[listen public]
endpoint = :443
[route a]
match = tls sni=a.site.example,c.site.example
backend = its
[backend its]
server = {a}
[route b]
match = tls sni=b.site.example
backend = 127.0.0.1:{b}
"""
_CASES: tuple[tuple[str, tuple[bytes, ...], str, bool], ...] = (
    (_WIDE, (b"h2", b"http/1.1"), "", True), (_WIDE, (b"http/1.1",), "", False),
    (_WIDE, (), "", False), ("a.site.example", (b"h2",), "", False),
    (_WIDE, (b"h2",), "tls = yes", False),  # clients speak TLS inside of that
    (_WIDE, (b"h2",), "proxy_protocol = v2", False),  # it is no TLS with that before it
)  # fmt: skip


class ServersTest(TestCase):
    def listen(self, name: str, alpn: tuple[bytes, ...]) -> int:
        pem = authority().issue(name).write(make_folder(self) / "x.pem", key=True).read_bytes()
        own = PrivateCertificate.loadPEM(pem)
        protocols: Any = {"acceptableProtocols": [*alpn] or None}
        options = CertificateOptions(KeyPair.load(pem, 1).original, own.original, **protocols)
        return listen_tls(self, Factory.forProtocol(Protocol), options)

    async def found(self, a: str, more: str = "") -> list[str]:
        text = _RULES.format(a=f"{a}\n{more}", b=free_port())
        problems = await shared_by_servers(parse(text, Path("x.ini")), reactor)
        self.assertEqual({one.severity for one in problems} - {"warning"}, set())
        return [f"{one.section} {one.message}" for one in problems]

    async def test_certificates(self) -> None:
        """A route is named once, however many of its names share the certificate."""
        for name, alpn, more, is_found in _CASES:
            found = await self.found(f"127.0.0.1:{self.listen(name, alpn)}", more)
            self.assertEqual(len(found), is_found, (name, alpn, more))
            for one in found:
                self.assertTrue(one.startswith("route a for 'a.site.example' the server "), one)
                self.assertIn("also for 'b.site.example', which belongs to [route b]", one)
        for server in (f"127.0.0.1:{free_port()}", "127.0.0.1:1 down"):
            self.assertEqual(await self.found(server), [], server)


_LISTEN = "[listen public]\nendpoint = :443\n"
_ENDS = "terminate_tls = {pem}\nalpn = h2, http/1.1\n"


def _route(name: str, match: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (f"[route {name}]", f"match = {match}", *lines))


_A = _route("a", "tls sni=a.site.example", "backend = 127.0.0.1:1", _ENDS)
_UNDER_A = _route("under-a", "http host=a.site.example", "under = all", "backend = 127.0.0.1:1")
_UNDER_B = _route("under-b", "http host=b.site.example", "under = all", "backend = 127.0.0.1:2")
_ALL = _route("all", "tls sni=*.site.example", _ENDS)

_WITH_B = _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:2")
_REFUSED = _route("b", "tls sni=*.site.example", "from = 10.0.0.0/8", "backend = close")
FOUND = {
    _WITH_B: ["a b b"], _WITH_B + _ENDS: ["a b b", "b a a"], _A + _REFUSED: ["a * b"],
    _ALL + _UNDER_A + _UNDER_B: ["all b under-b"],
}  # fmt: skip
"""Which route has a certificate that is also for which name of which other route."""
NOT_FOUND = (
    _A,
    _A + _route("b", "tls sni=b.site.example", "backend = 127.0.0.1:1", _ENDS),  # the same server
    _A + _route("b", "tls sni=b.other.example", "backend = 127.0.0.1:2"),  # not in the certificate
    _A + _route("b", "tls sni=b.c.site.example", "backend = 127.0.0.1:2"),
    _route("b", "ssh", "backend = 127.0.0.1:2") + _A,
    _WITH_B.replace("h2, ", ""),
    f"{_WITH_B}dry_run = yes\n",
    _A + _route("b", "not tls sni=b.site.example", "backend = 127.0.0.1:2"),
    _ALL + _UNDER_A,
    _ALL + _UNDER_A + _UNDER_B.replace("127.0.0.1:2", "127.0.0.1:1"),  # the same server
)


class CertificatesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.wide = authority().issue("*.site.example").write(self.folder / "wide.pem", key=True)

    def found(self, text: str, pem: str = "") -> list[tuple[str, str]]:
        rules = parse((_LISTEN + text).replace("{pem}", pem or str(self.wide)), Path("x.ini"))
        problems = [one for find in FEATURE.finds["check"] for one in find(rules)]
        self.assertEqual([one for one in problems if one.severity != "warning"], [])
        return [(one.section.split()[1].strip("]"), one.message) for one in problems]

    def test_names_of_several_places(self) -> None:
        for text, wanted in FOUND.items():
            found = self.found(text)
            for (name, message), one in zip(found, wanted, strict=True):
                its, also, other = one.split()
                self.assertEqual(name, its, text)
                what = f"'{also}.site.example', which belongs to [route {other}]"
                self.assertIn(f"'{self.wide}' is also for {what}, so browsers ", message)
        for text in NOT_FOUND:
            self.assertEqual(self.found(text), [], text)
        # Also where the wide one is for others, or no file can be read.
        issued = {name: authority().issue(f"{name}.site.example") for name in "ab"}
        own = [str(its.write(self.folder / name, key=True)) for name, its in issued.items()]
        for pem in (own[0], f"{self.wide}, {own[0]}", str(self.folder / "none.pem")):
            self.assertEqual(self.found(_WITH_B, pem), [], pem)
        self.assertEqual(len(self.found(_WITH_B, f"{self.wide}, {own[1]}")), 1)
