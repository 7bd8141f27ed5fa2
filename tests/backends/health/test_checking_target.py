"""Tests of where and how checks ask: at another port, with TLS or without, and with which header."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import ssl
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.backends.health.checking_case import WELL, CheckingTestCase, ill
from tests.interop.servers import make_certificate
from tests.support.mux import server_at
from tests.support.peers import PeerFactory, listen
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import ProbeTarget
from txmux.backends.pool.member import Member
from txmux.rules.model import Backend, ServerTLS
from txmux.rules.reading.checks import check as read_check

if TYPE_CHECKING:
    from tests.support.peers import Peer
    from txmux.backends.health.checking import CheckResult


class AskingTests(CheckingTestCase):
    """A server that is asked at one of two ports, of which clients know the first."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = make_certificate(Path(folder.name), "a.example")
        self.certificate = made.chain
        pem = made.chain.read_text() + made.key.read_text()
        self.options = ssl.PrivateCertificate.loadPEM(pem).options()
        self.names: list[bytes | None] = []
        context = self.options.getContext()
        context.set_tlsext_servername_callback(lambda c: self.names.append(c.get_servername()))
        self.clients = PeerFactory()
        self.clients_port = listen(self, self.clients)

    def secure_port(self) -> int:
        tls: Any = TLSMemoryBIOFactory(self.options, False, self.server)  # noqa: FBT003
        return listen(self, tls)

    def ask(
        self,
        text: str,
        port: int = 0,
        *,
        proxy_protocol: Any = "off",
        tls: BackendTLS | None = None,
    ) -> None:
        target = server_at(port or self.clients_port)
        check = read_check(text)
        backend = Backend("b", (target,), check=check, proxy_protocol=proxy_protocol)
        asking = ProbeTarget(backend, check, tls.wrap if tls else None)
        member = Member(target, target, "a.example")
        self.found = []
        checking = asking.make_check(self.time.clock, member, self.found.append)
        asking.start_check(checking, self.engines()[0], member)

    async def answered(self, answer: bytes = b"+PONG\r\n") -> tuple[bytes, CheckResult]:
        number = len(self.server.peers)
        peer: Peer = await self.server.peer(max(0, number - 1))
        await peer.until(lambda: peer.received.endswith(b"\n"))
        peer.send(answer)
        found = await self.finding()
        await peer.is_lost()
        return bytes(peer.received), found

    async def test_other_port(self) -> None:
        """At another port there is neither the header nor the TLS of the service, and clients' port is left alone."""
        port = listen(self, self.server)
        tls = BackendTLS(ServerTLS(ca=self.certificate))
        self.ask(f"redis port={port}", proxy_protocol="v2", tls=tls)
        self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))
        self.assertEqual(self.clients.peers, [])

    async def test_host_names_other_port(self) -> None:
        port = listen(self, self.server)
        self.ask(f"http port={port}")
        request, found = await self.answered(b"HTTP/1.1 200 OK\r\n")
        self.assertIn(f"Host: a.example:{port}\r\n".encode(), request)
        self.assertEqual(found, WELL)

    async def test_own_request(self) -> None:
        port = listen(self, self.server)
        self.ask(rf"http port={port} send='HEAD /x HTTP/1.0\r\n\r\n' expect=500-599")
        request, found = await self.answered(b"HTTP/1.1 503 Busy\r\n")
        self.assertEqual((request, found), (b"HEAD /x HTTP/1.0\r\n\r\n", WELL))

    async def test_tls_of_check(self) -> None:
        """With ``tls=yes`` a check speaks TLS to a server whose clients do so themselves, whatever its certificate."""
        for text in ("redis tls=yes", "redis tls=yes sni=b.example"):
            self.server = PeerFactory()
            self.ask(text, self.secure_port())
            self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))
        self.assertEqual(self.names, [b"a.example", b"b.example"])

    async def test_tls_of_other_port(self) -> None:
        self.ask(f"redis tls=yes port={self.secure_port()}")
        self.assertEqual((await self.answered())[1], WELL)

    async def test_server_without_tls(self) -> None:
        self.ask("tcp tls=yes", listen(self, self.server))
        peer = await self.server.peer()
        await peer.has(1)
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), ill("it answered with something that is not TLS"))
        await peer.is_lost()
        self.ask("tcp tls=yes", self.secure_port())
        self.assertEqual(await self.finding(), WELL)
        await self.is_over()

    async def test_tls_of_backend(self) -> None:
        """Where the backend has TLS, the check verifies the certificate as well; with ``tls=no`` it has none."""
        tls = BackendTLS(ServerTLS(name="b.example", ca=self.certificate))
        self.ask("redis tls=yes", self.secure_port(), tls=tls)
        self.assertIn("not for b.example", (await self.finding()).why)
        await self.is_over()
        self.server = PeerFactory()
        self.ask("redis tls=no", listen(self, self.server), tls=tls)
        self.assertEqual(await self.answered(), (b"*1\r\n$4\r\nPING\r\n", WELL))

    async def test_header_of_own_port(self) -> None:
        self.ask("tcp tls=yes", listen(self, self.server), proxy_protocol="v2")
        peer = await self.server.peer()
        await peer.has(17)
        self.assertEqual(peer.received[:17], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x16")
        peer.close()
        await self.finding()
        await peer.is_lost()
