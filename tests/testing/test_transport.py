from collections.abc import Callable
from typing import Any

from twisted.internet import interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.wiring import make_sides
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peers import Peer
from txmux.net.relay.relay import Relay
from txmux.net.sockets.poller import ReactorPoller
from txmux.testing import WaterMarkTransport


class _Log(Protocol):
    def __init__(self, before: Callable[[bytes], object] = bool) -> None:
        self.told: list[Any] = []
        self._before = before

    def dataReceived(self, data: bytes) -> None:
        self._before(data)
        self.told.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(reason.type)

    def readConnectionLost(self) -> None:
        self.told.append("read lost")

    def writeConnectionLost(self) -> None:
        self.told.append("write lost")


@implementer(interfaces.IPushProducer)
class _Producer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def connected(protocol: _Log) -> WaterMarkTransport:
    transport = WaterMarkTransport(10)
    transport.connect(protocol)
    return transport


class TransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.protocol = _Log()
        directlyProvides(self.protocol, interfaces.IHalfCloseableProtocol)
        self.transport = connected(self.protocol)

    def test_interfaces(self) -> None:
        """It provides what relays and protocols ask of a transport."""
        for interface in (interfaces.ITCPTransport, interfaces.IConsumer, interfaces.IPushProducer):
            self.assertTrue(verifyObject(interface, self.transport))
        self.assertEqual(self.transport.getPeer().host, "192.0.2.1")
        self.assertEqual(self.transport.getHost().port, 443)
        self.assertIsNone(self.transport.getHandle())
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.assertTrue(self.transport.getTcpNoDelay() and self.transport.getTcpKeepAlive())

    def test_bytes(self) -> None:
        """Bytes go both ways, and are taken in any pieces."""
        self.transport.deliver(b"question")
        self.transport.writeSequence([b"ans", b"wer"])
        self.assertEqual(self.protocol.told, [b"question"])
        self.assertEqual((self.transport.take(2), self.transport.take()), (b"an", b"swer"))

    def test_paused(self) -> None:
        """What comes while it is paused waits, the end too."""
        self.transport.pauseProducing()
        self.transport.deliver(b"a")
        self.transport.deliver(b"b")
        self.transport.finish()
        self.assertEqual((self.protocol.told, self.transport.paused), ([], True))
        self.transport.resumeProducing()
        self.assertEqual(self.protocol.told, [b"a", b"b", "read lost"])

    def test_water_mark(self) -> None:
        """A producer is paused once above the mark, and resumed when all is taken."""
        producer = _Producer()
        self.transport.registerProducer(producer, streaming=True)
        self.transport.write(b"x" * 10)
        self.assertEqual(producer.told, [])
        self.transport.write(b"y")
        self.transport.write(b"z")
        self.assertEqual(producer.told, ["pause"])
        self.transport.take(11)
        self.assertEqual(producer.told, ["pause"])
        self.transport.take()
        self.assertEqual(producer.told, ["pause", "resume"])

        # One that does not stream is asked whenever all is taken.
        self.transport.unregisterProducer()
        producer = _Producer()
        self.transport.registerProducer(producer, streaming=False)
        self.transport.write(b"x" * 20)
        self.transport.take()
        self.assertEqual(producer.told, ["resume", "resume"])

    def test_one_producer(self) -> None:
        """There is one at a time, which hears no more once it is unregistered; it is stopped with the connection, and a later one at once."""
        first, late, gone = _Producer(), _Producer(), _Producer()
        self.transport.registerProducer(gone, streaming=True)
        self.transport.unregisterProducer()
        self.transport.write(b"x" * 20)
        self.assertEqual(gone.told, [])
        self.transport.take()
        self.transport.registerProducer(first, streaming=True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, late, streaming=True)
        self.transport.reset()
        self.transport.registerProducer(late, streaming=True)
        self.assertEqual((first.told, late.told), (["stop"], ["stop"]))

    def test_half_close(self) -> None:
        """The peer hears of the end after the last byte; then nothing can be written, but read."""
        self.transport.write(b"last")
        self.transport.loseWriteConnection()
        self.transport.write(b"too late")
        self.assertFalse(self.transport.finished)
        self.assertEqual(self.transport.take(), b"last")
        self.transport.take()
        self.assertTrue(self.transport.finished)
        self.transport.deliver(b"more")
        self.assertEqual(self.protocol.told, ["write lost", b"more"])

    def test_no_half_close(self) -> None:
        """A protocol that knows no half-close is over when the peer has finished; it can do one all the same."""
        log, transport = _Log(), connected(_Log())
        connected(log).finish()
        self.assertEqual(log.told, [ConnectionDone])
        transport.loseWriteConnection()
        transport.take()
        self.assertTrue(transport.finished)

    def test_close(self) -> None:
        """It closes when all is taken, and reads no more until then."""
        self.transport.write(b"bye")
        self.transport.stopProducing()
        self.transport.deliver(b"unheard")
        self.assertIsNone(self.transport.lost)
        self.transport.take()
        self.assertEqual(self.protocol.told, [ConnectionDone])
        self.transport.reset()
        self.assertEqual(self.protocol.told, [ConnectionDone])

    def test_abort(self) -> None:
        """It breaks off when the peer next looks, without what was unsent; so can the peer."""
        for end, why in (("abortConnection", ConnectionAborted), ("reset", ConnectionLost)):
            log = _Log()
            transport = connected(log)
            transport.write(b"unsent")
            getattr(transport, end)()
            transport.write(b"too late")
            self.assertEqual((transport.take(), log.told), (b"", [why]))

    def test_answers_while_delivered(self) -> None:
        """What is delivered while the protocol is given bytes comes after them."""
        transport = self.transport

        def answer(data: bytes) -> None:
            if data == b"first":
                transport.deliver(b"second")

        log = _Log(answer)
        transport.connect(log)
        transport.deliver(b"first")
        self.assertEqual(log.told, [b"first", b"second"])


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        private = PrivateReactor("select")
        self.addCleanup(private.close)
        self.turn, poller = private.turn, ReactorPoller(private.reactor)
        self.results: list[RelayResult] = []
        ends = client, server = Peer(), Peer()
        self.client, self.server = (WaterMarkTransport(10) for _ in ends)
        self.client.connect(client)
        self.server.connect(server)
        client.receiver, server.receiver = sides = make_sides(poller, client, server)
        Relay(Clock(), Timeouts(), self.results.append, sides).start(b"", client_finished=False)

    def take(self, transport: WaterMarkTransport) -> bytes:
        self.turn()
        taken = transport.take()
        self.turn()
        return taken

    def test_slow_server(self) -> None:
        """A client is not read while the server has too much to take, and nothing is lost."""
        for _ in range(4):
            self.client.deliver(b"123456")
        self.assertEqual((bytes(self.server.unsent), self.client.paused), (b"123456" * 2, True))
        self.assertEqual(self.take(self.server) + self.take(self.server), b"123456" * 4)
        self.assertFalse(self.client.paused)

    def test_ends(self) -> None:
        """Either half is closed in its turn, and then the whole."""
        self.client.finish()
        self.take(self.server)
        self.assertTrue(self.server.finished)
        self.server.deliver(b"answer")
        self.server.finish()
        self.assertEqual(self.take(self.client), b"answer")
        self.take(self.server)
        self.assertEqual([result.reason for result in self.results], ["done"])
