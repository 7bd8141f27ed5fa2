"""Tests of checks with a PROXY protocol header, and of checks over TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet import ssl
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.backends.health.checking_case import WELL, CheckingTestCase, ill
from tests.interop.servers import make_certificate
from tests.support.folders import make_folder
from tests.support.mux import server_at
from tests.support.peers import Peer, PeerFactory, listen, reactor
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checking import CheckRun, with_header
from txmux.rules.model import ServerTLS
from txmux.rules.reading.endpoints import server
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader


class HeaderTests(CheckingTestCase):
    """With the PROXY protocol."""

    async def received(self, version: Any) -> tuple[bytes, Peer]:
        self.server = PeerFactory()
        self.port = listen(self, self.server)
        target = server_at(self.port)
        self.check("redis", target, wrap=lambda factory: with_header(factory, version))
        peer = await self.server.peer()
        await peer.until(lambda: peer.received.endswith(b"PING\r\n"))
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        return bytes(peer.received).removesuffix(b"*1\r\n$4\r\nPING\r\n"), peer

    async def test_versions(self) -> None:
        self.assertEqual((await self.received("off"))[0], b"")
        self.assertEqual((await self.received("v2"))[0], encode_v2(ProxyHeader(Command.LOCAL)))
        header, peer = await self.received("v1")
        ports = f"{peer.transport.getPeer().port} {self.port}"
        self.assertEqual(header, f"PROXY TCP4 127.0.0.1 127.0.0.1 {ports}\r\n".encode())

    async def test_unix(self) -> None:
        folder = make_folder(self)
        port = reactor.listenUNIX(f"{folder}/socket", self.server)
        self.addCleanup(port.stopListening)
        target = server(f"unix:{folder}/socket")
        self.check("tcp", target, wrap=lambda factory: with_header(factory, "v1"))
        peer = await self.server.peer()
        await peer.is_lost()
        self.assertEqual(peer.received, b"PROXY UNKNOWN\r\n")


class TlsTests(CheckingTestCase):
    """With TLS, as the backend's own connections have it."""

    def setUp(self) -> None:
        super().setUp()
        folder = make_folder(self)
        made = make_certificate(folder, "a.example")
        self.tls = BackendTLS(ServerTLS(ca=made.chain))
        pem = made.chain.read_text() + made.key.read_text()
        self.options = ssl.PrivateCertificate.loadPEM(pem).options()

    def secure_port(self) -> int:
        tls: Any = TLSMemoryBIOFactory(self.options, False, self.server)  # noqa: FBT003
        return listen(self, tls)

    def check_tls(self, kind: str, name: str = "a.example", port: int = 0) -> CheckRun:
        return self.check(
            kind,
            server_at(port or self.secure_port()),
            wrap=lambda factory: self.tls.wrap(factory, name),
        )

    async def test_well(self) -> None:
        self.check_tls("redis")
        peer = await self.server.peer()
        await peer.has(14)
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        self.assertFalse(peer.was_reset())
        await self.is_over()

    async def test_tcp_verifies_certificate(self) -> None:
        self.check_tls("tcp")
        self.assertEqual(await self.finding(), WELL)
        await self.is_over()
        self.check_tls("tcp", "b.example")
        why = "its certificate is for a.example, not for b.example; see tls_name"
        self.assertEqual(await self.finding(), ill(why))
        await self.is_over()

    async def test_endpoint(self) -> None:
        self.check("tcp", server(f"tls:127.0.0.1:{self.secure_port()}"))
        self.assertEqual(await self.finding(), ill("its certificate is for another name"))
        await self.is_over()
        port = listen(self, self.server)
        for number, (answer, why) in enumerate(
            (
                (b"", "connection closed during the TLS handshake"),
                (b"220 mail\r\n", "the TLS handshake failed: wrong version number"),
            ),
            len(self.server.peers),
        ):
            self.check("tcp", server(f"tls:127.0.0.1:{port}"))
            peer = await self.server.peer(number)
            await peer.has(1)
            peer.send(answer)
            peer.close()
            self.assertEqual(await self.finding(), ill(why))
            await self.is_over()

    async def test_no_handshake(self) -> None:
        port = listen(self, self.server)
        self.check_tls("tcp", port=port)
        peer = await self.server.peer()
        await peer.has(1)
        self.time.advance(1)
        self.assertEqual(await self.finding(), ill("timed out after 1 s"))
        await peer.is_lost()
        checking = self.check_tls("tcp", port=port)
        peer = await self.server.peer(1)
        await peer.has(1)
        checking.abort()
        await peer.is_lost()
        self.assertEqual(self.found, [])
        self.check_tls("tcp", port=port)
        peer = await self.server.peer(2)
        await peer.has(1)
        peer.close()
        why = "it closed the connection instead of answering with TLS"
        self.assertEqual(await self.finding(), ill(why))
        self.assert_nothing_left()

    async def test_hangs(self) -> None:
        for number, (answer, finding) in enumerate(
            ((b"", ill("timed out after 1 s")), (b"+PONG\r\n", WELL))
        ):
            self.check_tls("redis")
            peer = await self.server.peer(number)
            await peer.has(14)
            peer.transport.pauseProducing()
            if answer:
                peer.send(answer)
                await self.finding()
            self.time.advance(1)
            self.assertEqual(await self.finding(), finding)
            await deferLater(reactor, 0)
            peer.transport.resumeProducing()
            await peer.has_all()
            self.assertTrue(peer.was_reset())
            await self.is_over()

    async def test_closes(self) -> None:
        for leave in (Peer.close, Peer.reset):
            self.server = PeerFactory()
            self.check_tls("redis")
            peer = await self.server.peer()
            await peer.has(1)
            leave(peer)
            why = "connection closed without an answer"
            self.assertEqual(await self.finding(), ill(why))
            await self.is_over()
