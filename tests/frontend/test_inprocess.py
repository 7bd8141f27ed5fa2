"""Protocols of this process as backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.mux import MuxTestCase
from tests.support.peers import PeerFactory
from txmux.embedding import outcome, route

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, protocol: type[Protocol] | None) -> None:
        self._made = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._made and self._made()


class HandOverTest(MuxTestCase):
    """A client's connection is handed over as it is."""

    async def handed(self, factory: Any) -> Any:
        client = await self.connect(self.mux([route("any", factory, name="inside")]))
        client.send(b"first")
        return client

    async def test_gets_all_bytes(self) -> None:
        """The protocol gets what was peeked at, then the rest, and its answers are counted."""
        client = await self.handed(self.backend)
        server = await self.backend.peer()
        await server.has(5)
        client.send(b" second")
        await server.has(12)
        self.assertEqual(bytes(server.received), b"first second")
        server.send(b"answer")
        server.transport.writeSequence([b" and", b" more"])
        await client.has(15)
        client.close()
        await server.has_all()
        server.close()
        self.assert_story(
            await self.logged(),
            route="inside",
            backend="PeerFactory",
            server=None,
            reason="done",
            bytes_in=12,
            bytes_out=15,
        )

    async def test_transport(self) -> None:
        """It sees a TCP transport with the client's address."""
        client = await self.handed(self.backend)
        server = await self.backend.peer()
        self.assertTrue(ITCPTransport.providedBy(server.transport))
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())

    async def test_half_close(self) -> None:
        """It hears of a half-close if it knows of such."""
        client = await self.handed(self.backend)
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        self.assertIsNone(server.lost)
        server.send(b"late answer")
        server.close()
        await client.has_all()
        self.assertEqual(bytes(client.received), b"late answer")

    async def test_finished_before(self) -> None:
        """A half-close that led to the decision is passed on as well."""
        client = await self.connect(self.mux(default=outcome(self.backend)))
        client.send(b"x")
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"x")
        server.close()
        await client.has_all()

    async def test_no_half_close(self) -> None:
        """A protocol that knows of no half-close loses the connection, after what it wrote."""

        class Answers(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"answer")  # type: ignore[union-attr]

        client = await self.handed(_Factory(Answers))
        client.finish()
        await client.has_all()
        self.assertEqual(bytes(client.received), b"answer")
        self.assert_story(await self.logged(), reason="done")

    async def test_client_reset(self) -> None:
        """It hears that the client broke off."""
        client = await self.handed(self.backend)
        server = await self.backend.peer()
        client.reset()
        await server.is_lost()
        self.assertTrue(server.was_reset())
        self.assert_story(await self.logged(), reason="client-reset")

    async def test_aborts(self) -> None:
        """It may break the connection off itself."""
        client = await self.handed(self.backend)
        (await self.backend.peer()).reset()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_drained(self) -> None:
        """It is ended at the end of a drain."""
        client = await self.handed(self.backend)
        await self.backend.peer()
        self.factory.abort("drained")
        await client.is_lost()
        self.assert_story(await self.logged(), reason="drained")

    async def test_closes_at_once(self) -> None:
        """A protocol that closes when it is connected is sent no bytes any more."""

        class Closes(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

            def dataReceived(self, data: bytes) -> None:
                raise AssertionError(data)

        client = await self.handed(_Factory(Closes))
        await client.is_lost()
        self.assert_story(await self.logged(), reason="done")

    async def test_builds_nothing(self) -> None:
        """A factory that builds no protocol refuses the client."""
        client = await self.handed(_Factory(None))
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="denied")

    async def test_raises(self) -> None:
        """A protocol's error ends its own connection, is logged, and no other is hurt."""

        class Raises(Protocol):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        port = self.mux([route("payload text=bad", _Factory(Raises)), route("any", self.backend)])
        good = await self.connect(port)
        good.send(b"good")
        server = await self.backend.peer()
        bad = await self.connect(port)
        bad.send(b"bad")
        await bad.is_lost()
        self.assert_story(await self.logged(), reason="error", backend="_Factory")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        good.send(b"!")
        await server.has(5)

    async def test_factories_are_started(self) -> None:
        """A factory is started and stopped with the listener, as if it listened itself."""
        factory = PeerFactory()
        self.mux([route("any", factory)], default=outcome(factory))
        self.assertEqual(factory.numPorts, 2)
        self.factory.doStop()
        self.assertEqual(factory.numPorts, 0)
        self.factory.doStart()

    async def test_site(self) -> None:
        """A web site of Twisted's answers, and keeps the connection for the next request."""

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"hello %s" % request.path

        site = Site(Page())
        client = await self.connect(self.mux([route("http", site)]))
        for path in (b"/1", b"/2"):
            client.received.clear()
            client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            await client.until(lambda path=path: client.received.endswith(b"hello " + path))  # type: ignore[misc]
        client.close()
        self.assert_story(await self.logged(), reason="done", backend="Site")
