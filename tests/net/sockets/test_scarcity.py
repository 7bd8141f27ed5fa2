import errno
import socket
from typing import Any, NoReturn
from unittest.mock import Mock, patch

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.net.sockets.scarcity import ScarceEpoll, listen_beside, make_scarce
from tests.support.kit import Peer, change_constants, connect, listen, pair, reactor
from tests.support.peers import PeerClientFactory, PeerFactory, make_stalled_port
from tests.support.proc import count_descriptors
from txmux.net.sockets import descriptors as descriptors_module
from txmux.net.sockets import poller as poller_module
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.descriptors import DESCRIPTORS, Descriptors
from txmux.net.sockets.memory import MEMORY, OutOfMemory
from txmux.net.sockets.poller import READ, WRITE, Poller
from txmux.net.sockets.port import TwistedPort
from txmux.net.sockets.transport import SocketTransport


class _Full(dict[int, Any]):
    def __setitem__(self, key: int, value: Any) -> None:
        raise MemoryError


def descriptors() -> int:
    return count_descriptors("socket:", "anon_inode:[eventpoll]")


class ScarcityTest(TestCase):
    def setUp(self) -> None:
        self.poller = Poller.for_reactor(reactor)
        self.factory = PeerFactory()
        port = listen_beside(self, self.poller, self.factory)
        self.number: int = port.getHost().port
        self.epoll: ScarceEpoll = make_scarce(self, self.poller)

    async def test_client(self) -> None:
        """A client that cannot be watched is ended; those after it wait until there is room."""
        handlers, before = len(self.poller.handlers), descriptors()
        # It is not tried again before the test says so
        change_constants(self, descriptors_module, _BREATH=600.0)
        self.epoll.room = 0
        first, second = await connect(self, self.number), await connect(self, self.number)
        await first.is_lost()
        self.assertEqual(len(self.factory.peers), 1)
        (await self.factory.peer(0)).transport = None
        self.assertEqual(len(self.poller.handlers), handlers)
        self.assertEqual(descriptors(), before + 1)  # the second client's own
        self.epoll.room = None
        DESCRIPTORS.connection_ended()
        second.send(b"x")
        await (await self.factory.peer(1)).has(1)

    async def test_last_of_a_turn(self) -> None:
        """When the last client that waits is accepted as others have their turn, the port knows that nobody waits any more."""
        cases: list[dict[str, Any]] = [
            {"max_batch_time": 0.0},
            {"batch_size": 1, "max_batch_time": 3600.0},
        ]
        for options in cases:
            limit, factory = [100], PeerFactory()
            scarce = Descriptors(lambda: 100, lambda n=limit: n[0])  # type: ignore[misc]
            port = listen_beside(self, self.poller, factory, descriptors=scarce, **options)
            await connect(self, port.getHost().port)
            while not port.pause.is_short:
                await deferLater(reactor, 0)
            limit[0] = 1000
            scarce.connection_ended()
            await factory.peer()
            await deferLater(reactor, 0)
            self.assertFalse(port.pause.is_short)

    async def test_closed_port_says_nothing_of_the_clients_in_its_queue(self) -> None:
        """Another process may accept them from it; and where none has waited, no wait ends."""
        idle = listen_beside(self, self.poller, PeerFactory())
        scarce = Descriptors(lambda: 100, lambda: 100)
        port = listen_beside(self, self.poller, PeerFactory(), descriptors=scarce)
        await connect(self, port.getHost().port)
        while not port.pause.is_short:
            await deferLater(reactor, 0)
        with capturedLogs() as events:
            await port.stopListening()
            await idle.stopListening()
        self.assertNotIn("no client is waiting", "".join(map(eventAsText, events)))

    async def test_unwatched_connection_fails_at_once(self) -> None:
        clock, failing = Clock(), PeerClientFactory()
        name = ("127.0.0.1", make_stalled_port(self))
        handlers, before = len(self.poller.handlers), descriptors()
        self.epoll.room = 0
        SocketConnector(self.poller, clock, socket.AF_INET, name, failing).connect(5)
        problem: Any = await self.assertFailure(failing.connected, ConnectError)
        self.assertEqual((problem.osError, clock.getDelayedCalls()), (errno.ENOSPC, []))
        self.assertEqual((len(self.poller.handlers), descriptors()), (handlers, before))

    async def test_resumed_but_unwatchable(self) -> None:
        """It ends, as does what a factory raises for."""
        failing, handlers = PeerClientFactory(), len(self.poller.handlers)
        failing.buildProtocol = None  # type: ignore[assignment]
        name = ("127.0.0.1", self.number)
        SocketConnector(self.poller, Clock(), socket.AF_INET, name, failing).connect(5)
        await self.assertFailure(failing.connected, TypeError)
        await (await self.factory.peer()).is_lost()
        self.assertEqual(len(self.poller.handlers), handlers)
        client = await connect(self, self.number)
        server = await self.factory.peer(1)
        server.transport.pauseProducing()
        self.epoll.room = 0
        server.transport.resumeProducing()
        await server.is_lost()
        await client.is_lost()


class FirstTest(SynchronousTestCase):
    def test_reader(self) -> None:
        full = Mock()
        full.addReader.side_effect = (OSError, None)
        poller = Poller(full)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            before = descriptors()
            self.assertRaises(OSError, poller.watch, ours.fileno(), READ, print)
            self.assertEqual(descriptors(), before)
            seen: list[int] = []
            poller.watch(ours.fileno(), WRITE, seen.append)
            poller.doRead()
            poller.unwatch(ours.fileno())
            self.assertEqual((set(seen), descriptors()), ({WRITE}, before))


class MemoryTest(TestCase):
    def run_short(self, *_: object, **__: object) -> NoReturn:
        raise MemoryError

    async def test_poller(self) -> None:
        poller = Poller.for_reactor(reactor)
        factory = PeerFactory()
        port = listen_beside(self, poller, factory)
        with (
            patch.object(poller_module._log, "failure", self.run_short),
            patch.object(poller, "_finish", self.run_short),
        ):
            poller.call_soon(self.run_short)
            client = await connect(self, port.getHost().port)
            await deferLater(reactor, 0.01)
        client.send(b"x")
        await (await factory.peer()).has(1)

    async def test_watch(self) -> None:
        poller = Poller.for_reactor(reactor)
        ours, _ = pair(self)
        for table in ("handlers", "_events"):
            full = self.patch(poller, table, _Full())
            self.assertRaises(MemoryError, poller.watch, ours.fileno(), WRITE, self.run_short)
            full.restore()
            ready: Deferred[int] = Deferred()
            poller.watch(ours.fileno(), WRITE, ready.callback)
            await ready
            poller.unwatch(ours.fileno())

    async def test_connector(self) -> None:
        listening = PeerFactory()
        there, full = listen(self, listening), make_stalled_port(self)
        poller, clock = Poller.for_reactor(reactor), Clock()
        self.addCleanup(setattr, MEMORY, "short_since", None)
        before = descriptors()
        for owner, name, number in (
            (clock, "callLater", full), (poller, "watch", full), (PeerClientFactory, "buildProtocol", there),
        ):  # fmt: skip
            factory = PeerClientFactory()
            patched = self.patch(owner, name, self.run_short)
            connector = SocketConnector(
                poller, clock, socket.AF_INET, ("127.0.0.1", number), factory
            )
            connector.connect(5)
            failure = await self.assertFailure(factory.connected, OutOfMemory)
            patched.restore()
            self.assertEqual(str(failure), "there is no memory left")
            self.assertIsNotNone(MEMORY.short_since, name)
            MEMORY.short_since = None
        self.assertEqual(clock.getDelayedCalls(), [])
        peer = await listening.peer()
        await peer.is_lost()
        self.assertTrue(peer.was_reset())
        self.assertEqual(descriptors(), before)

    async def test_connected(self) -> None:
        listening = PeerFactory()
        name = ("127.0.0.1", listen(self, listening))
        self.addCleanup(setattr, MEMORY, "short_since", None)
        poller = Poller.for_reactor(reactor)
        watch = poller.watch

        def watch_no_transport(descriptor: int, events: int, handler: Any) -> None:
            if isinstance(handler.__self__, SocketTransport):
                self.run_short()
            watch(descriptor, events, handler)

        for method in ("watch", "makeConnection"):
            ours = Peer()
            owner, instead = (
                (poller, watch_no_transport) if method == "watch" else (ours, self.run_short)
            )
            patched = self.patch(owner, method, instead)
            factory = ClientFactory.forProtocol(lambda: ours)  # noqa: B023
            SocketConnector(poller, Clock(), socket.AF_INET, name, factory).connect(5)
            await ours.until(lambda: ours.lost is not None)  # noqa: B023
            patched.restore()
            assert ours.lost is not None
            self.assertIs(ours.lost.type, OutOfMemory)
        for index in range(2):
            peer = await listening.peer(index)
            await peer.is_lost()
            self.assertTrue(peer.was_reset())

    async def test_gate(self) -> None:
        """A port of Twisted's stays open."""
        factory = PeerFactory()
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        fails = [True]
        scarce = Descriptors(lambda: self.run_short() if fails else 0)
        TwistedPort.take_over(Poller.for_reactor(reactor), port, scarce)
        client = await connect(self, port.getHost().port)
        await deferLater(reactor, 0.01)
        self.assertEqual(factory.peers, [])
        fails.clear()
        client.send(b"x")
        await (await factory.peer()).has(1)
