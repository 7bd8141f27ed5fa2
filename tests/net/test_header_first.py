"""Tests of putting the header in front, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer, error, ssl
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from tests.support.ports import free_port
from tests.wire.proxyprotocol.vectors import IPV4
from txmux.net.header_first import HeaderFirst
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.interfaces import IAddress, IConnector
    from twisted.python.failure import Failure

HEADER = encode_v2(IPV4)
GREETING = b"greeting"


class Server(Protocol):
    """Keep what comes; when `expected` bytes are there, answer and finish sending."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.chunks: list[bytes] = []
        self.lost: defer.Deferred[None] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.chunks.append(data)
        if len(b"".join(self.chunks)) == self.expected:
            transport = cast("Any", self.transport)
            transport.write(b"answer")
            transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """Greet at once; when the other side has finished sending, say so, once more, and leave."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.lost: defer.Deferred[None] = defer.Deferred()

    def connectionMade(self) -> None:
        cast("Any", self.transport).write(GREETING)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.events.append("read lost")
        transport = cast("Any", self.transport)
        transport.write(b"bye")
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Recorder(ClientFactory):
    """A factory that makes one given protocol, and notes what it is told."""

    noisy = False

    def __init__(self, client: Protocol | None) -> None:
        self.client = client
        self.reported: list[tuple[object, ...]] = []
        self.over: defer.Deferred[None] = defer.Deferred()

    def doStart(self) -> None:
        self.reported.append(("start",))

    def doStop(self) -> None:
        self.reported.append(("stop",))
        self.over.callback(None)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self.client

    def startedConnecting(self, connector: IConnector) -> None:
        self.reported.append(("connecting", connector))

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.reported.append(("failed", connector, reason.type))

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self.reported.append(("lost", connector, reason.type))


class MakeConnectionTests(SynchronousTestCase):
    """What the wrapper does to a protocol."""

    def test_steps_out_of_the_way(self) -> None:
        client = Client()
        before = set(vars(client))
        built = HeaderFirst(Recorder(client), HEADER).buildProtocol(None)
        self.assertIs(built, client)
        transport = StringTransport()
        client.makeConnection(transport)
        self.assertIs(client.transport, transport)
        self.assertEqual(transport.value(), HEADER + GREETING)
        self.assertEqual(set(vars(client)) - before, {"connected", "transport"})

    def test_one_inside_another(self) -> None:
        client = Client()
        factory = HeaderFirst(HeaderFirst(Recorder(client), b"inner "), b"outer ")
        factory.buildProtocol(None)
        transport = StringTransport()
        client.makeConnection(transport)
        self.assertEqual(transport.value(), b"outer inner " + GREETING)

    def test_header_made_for_the_connection(self) -> None:
        client = Client()
        factory = HeaderFirst(
            Recorder(client), lambda transport: f"from {transport.getHost()} ".encode()
        )
        factory.buildProtocol(None)
        transport = StringTransport(hostAddress="here")
        client.makeConnection(transport)
        self.assertEqual(transport.value(), b"from here " + GREETING)

    def test_no_protocol(self) -> None:
        self.assertIsNone(HeaderFirst(Recorder(None), HEADER).buildProtocol(None))

    def test_repr(self) -> None:
        factory = Recorder(None)
        self.assertEqual(repr(HeaderFirst(factory, HEADER)), f"<HeaderFirst {factory!r}>")


class LoopbackTests(TestCase):
    """Real connections."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415  # importing it installs it

        self.reactor = cast("Any", reactor)

    def serve(self, server: Protocol) -> int:
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def check(self, server: Server, client: Client, header: bytes = HEADER) -> None:
        self.assertEqual(b"".join(server.chunks), header + GREETING + b"bye")
        self.assertEqual(client.received, b"answer")
        self.assertIn("read lost", client.events)

    @defer.inlineCallbacks
    def test_tcp(self) -> Generator[defer.Deferred[Any], Any, None]:
        server, client = Server(len(HEADER + GREETING)), Client()
        factory = Recorder(client)
        connector = self.reactor.connectTCP(
            "127.0.0.1", self.serve(server), HeaderFirst(factory, HEADER)
        )
        yield defer.gatherResults([server.lost, client.lost, factory.over])
        self.check(server, client)
        self.assertEqual(server.chunks[0], HEADER + GREETING)
        self.assertEqual(
            factory.reported,
            [
                ("start",),
                ("connecting", connector),
                ("lost", connector, error.ConnectionDone),
                ("stop",),
            ],
        )

    @defer.inlineCallbacks
    def test_refused_is_reported(self) -> Generator[defer.Deferred[Any], Any, None]:
        factory = Recorder(Client())
        connector = self.reactor.connectTCP("127.0.0.1", free_port(), HeaderFirst(factory, HEADER))
        yield factory.over
        self.assertIn(("failed", connector, error.ConnectionRefusedError), factory.reported)

    @defer.inlineCallbacks
    def test_tcp_endpoint(self) -> Generator[defer.Deferred[Any], Any, None]:
        header = encode_v1(IPV4)
        server, client = Server(len(header + GREETING)), Client()
        endpoint = clientFromString(self.reactor, f"tcp:127.0.0.1:{self.serve(server)}")
        connected = yield endpoint.connect(HeaderFirst(Recorder(client), header))
        self.assertIs(connected, client)
        yield defer.gatherResults([server.lost, client.lost])
        self.check(server, client, header)

    @defer.inlineCallbacks
    def test_unix_endpoint(self) -> Generator[defer.Deferred[Any], Any, None]:
        folder = make_folder(self)
        path = str(folder / "socket")
        server, client = Server(len(HEADER + GREETING)), Client()
        factory = Factory.forProtocol(lambda: server)
        port = self.reactor.listenUNIX(path, factory)
        self.addCleanup(port.stopListening)
        endpoint = clientFromString(self.reactor, f"unix:{path}")
        yield endpoint.connect(HeaderFirst(Recorder(client), HEADER))
        yield defer.gatherResults([server.lost, client.lost])
        self.check(server, client)

    @defer.inlineCallbacks
    def test_under_tls(self) -> Generator[defer.Deferred[Any], Any, None]:
        certificate = make_authority("localhost", "localhost").private()
        inner, client = Server(len(GREETING)), Client()
        outer = TlsBehindHeader(certificate.options(), inner)
        tls = TLSMemoryBIOFactory(
            ssl.optionsForClientTLS("localhost", certificate),
            isClient=True,
            wrappedFactory=Recorder(client),
        )
        endpoint = clientFromString(self.reactor, f"tcp:127.0.0.1:{self.serve(outer)}")
        yield endpoint.connect(HeaderFirst(tls, HEADER))
        yield defer.gatherResults([inner.lost, client.lost])
        self.assertEqual(outer.header, HEADER)
        self.assertEqual(b"".join(inner.chunks)[: len(GREETING)], GREETING)
        self.assertEqual(client.received, b"answer")


class TlsBehindHeader(Protocol):
    """Take as many bytes as the header has, and give all others to a TLS server."""

    def __init__(self, options: Any, inner: Protocol) -> None:
        self.header = b""
        factory = Factory.forProtocol(lambda: inner)
        tls = TLSMemoryBIOFactory(options, isClient=False, wrappedFactory=factory)
        self.tls = tls.buildProtocol(None)

    def dataReceived(self, data: bytes) -> None:
        missing = len(HEADER) - len(self.header)
        self.header += data[:missing]
        if missing and len(self.header) == len(HEADER):
            self.tls.makeConnection(self.transport)
        if data[missing:]:
            self.tls.dataReceived(data[missing:])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.tls.connectionLost(reason)
