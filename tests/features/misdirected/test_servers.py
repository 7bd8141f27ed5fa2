from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, KeyPair, PrivateCertificate
from twisted.trial.unittest import TestCase

from tests.support.certificates import authority
from tests.support.folders import make_folder
from tests.support.peers import reactor
from tests.support.ports import free_port
from txmux.features.misdirected.servers import shared_by_servers
from txmux.rules.reading.parser import parse

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
        real: Any = reactor
        port = real.listenSSL(0, Factory.forProtocol(Protocol), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

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
