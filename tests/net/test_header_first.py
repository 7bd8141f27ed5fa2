from __future__ import annotations

from twisted.internet import defer, error
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import Peer, PeerFactory, free_port, listen, make_folder, reactor
from tests.wire.proxyprotocol.vectors import IPV4
from txmux.net.header_first import HeaderFirst
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2

HEADER = encode_v2(IPV4)
GREETING = b"greeting"


class Client(Peer):
    def connectionMade(self) -> None:
        self.transport.write(GREETING)


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
    def test_steps_out_of_the_way(self) -> None:
        """So it does where there is no protocol."""
        client = Client()
        before = set(vars(client))
        self.assertIs(HeaderFirst(Recorder(client), HEADER).buildProtocol(None), client)
        transport = StringTransport()
        client.makeConnection(transport)
        self.assertIs(client.transport, transport)
        self.assertEqual(transport.value(), HEADER + GREETING)
        self.assertEqual(set(vars(client)) - before, {"connected", "transport"})
        factory = Recorder(None)
        first = HeaderFirst(factory, HEADER)
        self.assertIsNone(first.buildProtocol(None))
        self.assertEqual(repr(first), f"<HeaderFirst {factory!r}>")

    def test_what_comes_first(self) -> None:
        """A header may have another one inside, and be made for the connection."""
        for inner, outer, said in (
            (b"inner ", b"outer ", b"outer inner "),
            (b"", lambda transport: f"from {transport.getHost()} ".encode(), b"from here "),
        ):
            client = Client()
            HeaderFirst(HeaderFirst(Recorder(client), inner), outer).buildProtocol(None)
            transport = StringTransport(hostAddress="here")
            client.makeConnection(transport)
            self.assertEqual(transport.value(), said + GREETING)


class LoopbackTests(TestCase):
    def setUp(self) -> None:
        self.peers = PeerFactory()

    async def check(self, client: Client, header: bytes = HEADER) -> None:
        server = await self.peers.peer()
        await server.has(1)
        self.assertEqual(bytes(server.received), header + GREETING)
        server.send(b"answer")
        await client.has_all(server.finish)
        self.assertEqual((bytes(client.received), client.lost), (b"answer", None))
        client.send(b"bye")
        await server.is_lost(client.close)
        await client.is_lost()
        self.assertEqual(bytes(server.received), header + GREETING + b"bye")

    async def test_tcp(self) -> None:
        client = Client()
        factory = Recorder(client)
        port = listen(self, self.peers)
        connector = reactor.connectTCP("127.0.0.1", port, HeaderFirst(factory, HEADER))
        await self.check(client)
        await factory.over
        reported = ("connecting", connector), ("lost", connector, error.ConnectionDone)
        self.assertEqual(factory.reported, [("start",), *reported, ("stop",)])

    async def test_refused_is_reported(self) -> None:
        factory = Recorder(Client())
        connector = reactor.connectTCP("127.0.0.1", free_port(), HeaderFirst(factory, HEADER))
        await factory.over
        self.assertIn(("failed", connector, error.ConnectionRefusedError), factory.reported)

    async def test_endpoints(self) -> None:
        path = str(make_folder(self) / "socket")
        self.addCleanup(reactor.listenUNIX(path, self.peers).stopListening)
        tcp = f"tcp:127.0.0.1:{listen(self, self.peers)}"
        for text, header in ((tcp, encode_v1(IPV4)), (f"unix:{path}", HEADER)):
            client = Client()
            first = HeaderFirst(Recorder(client), header)
            self.assertIs(await clientFromString(reactor, text).connect(first), client)
            await self.check(client, header)
            self.peers.peers.clear()
