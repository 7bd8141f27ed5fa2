from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IAddress, IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import directlyProvides

from tests.net.relay.test_other_transports import certificate
from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory, make_stalled_port
from tests.support.tunnels import OPEN, connect_to
from txmux.rules.embedding import outcome, route
from txmux.rules.installed import KEYS


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, protocol: type[Protocol] | None) -> None:
        self._made = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._made and self._made()


def _doing(**does: Callable[[Any], object]) -> _Factory:
    """Make a factory of a protocol whose methods do this with their transport."""
    methods = {
        name: lambda its, *_, act=act: act(its.transport) and None for name, act in does.items()
    }
    return _Factory(type("Doing", (Protocol,), methods))


class _Page(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"hello %s" % request.path


class _NoDelay(Protocol):
    """Says what the options of its transport are, as any `ITCPTransport` has them."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        transport = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.write(b"%d%d\n" % (transport.getTcpNoDelay(), transport.getTcpKeepAlive()))
        transport.loseConnection()


class HandOverTest(MuxTestCase):
    async def handed(self, factory: Any) -> Any:
        return await self.connect(self.mux([route("any", factory, name="inside")]), b"first")

    async def served(self) -> tuple[Any, Any]:
        return await self.handed(self.backend), await self.backend.peer()

    async def test_protocol_gets_peeked_and_later_bytes_and_answers_are_counted(self) -> None:
        """Its half-close is done, and reported to it."""

        class Told(Peer):
            reported = False

            def writeConnectionLost(self) -> None:
                self.reported = True

        self.backend = PeerFactory(Told)
        client = await self.handed(self.backend)
        server: Any = await self.backend.heard(5)
        await client.tell(server, b" second", 12)
        self.assertEqual(bytes(server.received), b"first second")
        server.send(b"answer")
        server.transport.writeSequence([b" and", b" more"])
        await client.has(15)
        await client.has_all(server.finish)
        self.assertTrue(server.reported)
        await server.has_all(client.close)
        server.close()
        record = await self.assert_logged(reason="done", bytes_in=12, bytes_out=15)
        self.assert_story(record, route="inside", backend="PeerFactory", server=None)

    async def test_in_a_tunnel(self) -> None:
        if "tunnel" not in KEYS["route"]:
            return
        tunnel = {"tunnel": KEYS["route"]["tunnel"].kind.read("yes")}
        asked = attrs.evolve(route("http method=CONNECT", self.backend), more=tunnel)
        client, server = await self.both(self.mux([asked]), connect_to("a:1") + b"inside", 6)
        await client.has_all(server.close)
        self.assertEqual((bytes(server.received), bytes(client.received)), (b"inside", OPEN))

    async def test_fallback_gets_more_than_was_kept_before(self) -> None:
        stalled = make_stalled_port(self)
        backend = backend_at(stalled, fallback=outcome(self.backend), retries=0)
        client = await self.connect(self.mux([route("any", backend)], peek_limit=1000))
        client.send(b"x" * 1_000_000)
        await self.seen(1000)
        self.time.advance(5)
        server = await self.backend.heard(1_000_000)
        await server.has_all(client.finish)
        server.close()
        await self.assert_logged(reason="done", bytes_in=1_000_000)

    async def test_half_close_reaches_a_protocol_that_handles_it(self) -> None:
        """Also one that decided; others end after their answer."""
        default = outcome(self.backend)
        for routes in self.anew(([route("any", self.backend)], [])):
            client = await self.connect(self.mux(routes, default=default), b"first")
            client.finish()
            server = await self.backend.peer()
            await server.has_all()
            self.assertEqual((bytes(server.received), server.lost), (b"first", None))
            server.send(b"late answer")
            await client.has_all(server.close)
            self.assertEqual(bytes(client.received), b"late answer")
            await self.until_logged()
        client = await self.handed(_doing(dataReceived=lambda its: its.write(b"answer")))
        await client.has_all(client.finish)
        self.assertEqual(bytes(client.received), b"answer")
        await self.assert_logged(reason="done")

    async def test_protocol_that_ends_or_raises_when_made_gets_no_bytes(self) -> None:
        rows = (
            (lambda its: its.loseConnection(), "done"),
            (lambda its: its.abortConnection() or 1 / 0, "error"),
        )
        for made, reason in self.anew(rows):
            client = await self.handed(_doing(connectionMade=made, dataReceived=self.fail))
            await self.assert_ended(client, reason=reason)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_paused_protocol_gets_nothing_not_even_peeked_bytes(self) -> None:
        class Slow(Peer):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        self.backend = PeerFactory(Slow)
        client = await self.handed(self.backend)
        server = await self.backend.peer()
        client.send(b" more")
        client.finish()
        await self.turn(5)
        self.assertEqual((bytes(server.received), server.finished), (b"", False))
        self.assertEqual(self.only().record.bytes_in, 5)  # the rest is not even read
        server.transport.resumeProducing()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"first more")
        server.close()

    async def test_half_close_ends_other_protocols_even_while_they_produce(self) -> None:
        class Produces(Protocol):
            def connectionMade(self) -> None:
                transport: Any = self.transport
                directlyProvides(self, IPushProducer)
                transport.registerProducer(self, streaming=True)
                transport.write(bytes(16 * 1024 * 1024))

            def pauseProducing(self) -> None:
                pass

            resumeProducing = stopProducing = pauseProducing

        client = await self.handed(_Factory(Produces))
        client.transport.pauseProducing()
        client.finish()
        while not (
            self.factory.connections and getattr(self.only().transport, "disconnecting", False)
        ):
            await self.turn()
        client.transport.resumeProducing()
        await client.is_lost()
        self.assertEqual(len(client.received), 16 * 1024 * 1024)

    async def test_transport_is_tcp_with_the_clients_address_and_one_of_tls_once_that_starts(
        self,
    ) -> None:
        """Its protocol may put another in its place."""
        client, server = await self.served()
        await server.has(5)
        transport, second = server.transport, Peer()
        self.assertTrue(ITCPTransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), client.transport.getHost())
        transport.protocol = second
        second.makeConnection(transport)
        self.assertIs(transport.protocol, second)
        await client.tell(second, b"second")
        self.assertEqual((bytes(server.received), bytes(second.received)), (b"first", b"second"))
        self.assertFalse(ISSLTransport.providedBy(second.transport))
        second.transport.startTLS(certificate(), False)  # noqa: FBT003
        self.assertTrue(ISSLTransport.providedBy(second.transport))
        await second.is_lost(client.reset)

    async def test_reset_while_the_protocol_waits_to_close_or_is_paused(self) -> None:
        for does in self.anew(("loseConnection", "pauseProducing")):

            class Waits(Peer):
                def dataReceived(self, data: bytes, does: str = does) -> None:
                    super().dataReceived(data)
                    self.transport.write(bytes(16 * 1024 * 1024))
                    getattr(self.transport, does)()

            self.backend = PeerFactory(Waits)
            client = await self.handed(self.backend)
            client.transport.pauseProducing()
            server = await self.backend.heard(5)
            await server.has_all(client.reset)
            self.assertIsNotNone(server.lost)
            await self.assert_logged(reason="client-reset")

    async def test_each_side_may_reset_and_the_log_says_which(self) -> None:
        for reason in self.anew(("client-reset", "server-reset", "drained")):
            client, server = await self.served()
            if reason == "client-reset":
                await self.is_reset(server, client.reset)
            else:
                server.reset() if reason == "server-reset" else self.factory.abort("drained")
                await client.is_lost()
            await self.assert_logged(reason=reason)
        await self.is_reset(await self.handed(_Factory(None)))
        await self.assert_logged(reason="denied")

    async def test_error_of_a_protocol_ends_its_own_connection_alone(self) -> None:
        raises = _doing(dataReceived=lambda _: 1 / 0)
        port = self.mux([route("payload text=bad", raises), route("any", self.backend)])
        good = await self.connect(port, b"good")
        server = await self.backend.peer()
        bad = await self.connect(port, b"bad")
        await self.assert_ended(bad, reason="error", backend="_Factory")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await good.tell(server, b"!", 5)

    async def test_factory_starts_and_stops_with_the_listener(self) -> None:
        factory = PeerFactory()
        self.mux([route("any", factory)], default=outcome(factory))
        self.assertEqual(factory.numPorts, 2)
        self.factory.doStop()
        self.assertEqual(factory.numPorts, 0)
        self.factory.doStart()

    async def test_twisted_site_answers_several_requests(self) -> None:
        client = await self.connect(self.mux([route("http", Site(_Page()))]))
        for path in (b"/1", b"/2"):
            client.received.clear()
            client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            await client.until(lambda path=path: client.received.endswith(b"hello " + path))  # type: ignore[misc]
        client.close()
        await self.assert_logged(reason="done", backend="Site")

    async def test_twisted_protocols_on_unix_sockets(self) -> None:
        """They take the transport for one of TCP, as it says; an error would be logged, and fail the test."""
        site = route("http", Site(_Page(), timeout=None))
        number = self.mux([site, route("any", _Factory(_NoDelay))])
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("")
            opened.listen()
            path = opened.getsockname()
            port: Any = self.factory.listen(opened)
        self.addCleanup(port.stopListening)
        answers: list[bytes] = []
        asked = b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for name, data in ((path, asked), (path, b"?"), (("127.0.0.1", number), b"?")):
            with socket.socket(socket.AF_UNIX if name is path else socket.AF_INET) as client:
                client.connect(name)
                client.settimeout(0)
                client.sendall(data)
                await self.until_logged(len(answers) + 1)
                answers.append(client.recv(9999).splitlines()[-1])
        self.assertEqual(answers, [b"hello /1", b"01", b"11"])
        self.assertEqual({record.reason for record in self.records}, {"done"})
