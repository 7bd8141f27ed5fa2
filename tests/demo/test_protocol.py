"""What the demo's protocols have in common, shown on the simplest of them."""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import ServerFactory
from zope.interface.verify import verifyObject

from tests.demo.serving import Client, ServingTestCase
from txmux.demo.protocol import DemoProtocol


class _Doubler(DemoProtocol):
    """Answers each byte with a kilobyte of it; closes at a full stop."""

    def step(self) -> bool:
        if not self.pending:
            return False
        taken = self.pending.pop(0)
        if taken == ord("."):
            self.close()
        else:
            self.transport.write(bytes([taken]) * 1024)
        return True


class DemoProtocolTests(ServingTestCase):
    """`DemoProtocol`: steps, bounds and ends."""

    async def serve_doubler(self) -> int:
        factory = ServerFactory()
        factory.protocol = _Doubler
        return await self.serve(factory)

    async def paused_pair(self, port: int, request: bytes) -> tuple[Client, _Doubler]:
        """Connect a client that asks much and reads nothing, until the server takes no more."""
        client = await self.connect(port)
        client.transport.pauseProducing()
        client.transport.write(request)
        await self.until(lambda: bool(self.served))
        (server,) = self.served
        assert isinstance(server, _Doubler)
        await self.until(lambda: server._paused)
        return client, server

    def test_interfaces(self) -> None:
        """It is what it says it is to Twisted."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, _Doubler()))
        self.assertTrue(verifyObject(IPushProducer, _Doubler()))

    async def test_answers_after_half_close(self) -> None:
        """A client that has finished sending gets every answer, then the end."""
        port = await self.serve_doubler()
        self.assertEqual(await self.talk(port, b"ab"), b"a" * 1024 + b"b" * 1024)

    async def test_close_ignores_the_rest(self) -> None:
        """What comes after the last answer, in the same piece or later, is not answered."""
        port = await self.serve_doubler()
        self.assertEqual(await self.talk(port, b"a.b", finish=False), b"a" * 1024)

    async def test_late_data(self) -> None:
        """Bytes that come while it is closing are not answered."""
        client = await self.connect(await self.serve_doubler())
        client.transport.write(b"a")
        await self.until(lambda: bool(client.received))
        (server,) = self.served
        assert isinstance(server, _Doubler)
        server.close()
        server.dataReceived(b"b")
        self.assertEqual(await client.all_received(), b"a" * 1024)

    async def test_slow_reader(self) -> None:
        """Requests wait while the client does not read their answers, and are all answered when it does."""
        request = bytes(range(128, 256)) * 128
        client, server = await self.paused_pair(await self.serve_doubler(), request)
        self.assertTrue(server.pending)
        self.assertLessEqual(len(server.pending), 128 * 1024)
        client.transport.resumeProducing()
        client.transport.loseWriteConnection()
        self.assertEqual(
            await client.all_received(), b"".join(bytes([byte]) * 1024 for byte in request)
        )

    async def test_end_of_stream_while_paused(self) -> None:
        """A client known to have finished while answers wait still gets them all."""
        request = b"x" * 16384
        client, server = await self.paused_pair(await self.serve_doubler(), request)
        server.readConnectionLost()
        client.transport.resumeProducing()
        self.assertEqual(len(await client.all_received()), 16384 * 1024)

    async def test_client_gone(self) -> None:
        """Requests of a client that is gone are forgotten."""
        client, server = await self.paused_pair(await self.serve_doubler(), b"x" * 16384)
        client.transport.abortConnection()
        await self.until(lambda: not server.pending)
        self.assertEqual(await client.all_received(), b"")
