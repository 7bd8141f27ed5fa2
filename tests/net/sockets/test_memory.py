"""What happens when memory runs out."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.net.sockets.scarcity import listen_beside
from tests.support.peers import PeerClientFactory, PeerFactory, connect, reactor
from txmux.net.sockets.descriptors import Descriptors
from txmux.net.sockets.memory import MEMORY, Memory, OutOfMemory, keep_running
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.reactorsockets import connect_tcp, connect_unix, throttle_accepts


class _System:
    def __init__(self) -> None:
        self.left = 100
        self.now = 0.0

    def give(self) -> object:
        if not self.left:
            raise MemoryError
        self.left -= 1
        return _Piece(self)


class _Piece:
    def __init__(self, system: _System) -> None:
        self._system = system

    def __del__(self) -> None:
        self._system.left += 1


def said(events: Sequence[LogEvent], words: str) -> int:
    return sum(words in event["log_format"] for event in events)


class MemoryTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.system = _System()
        self.memory = Memory(self.system.give, lambda: self.system.now)

    def test_reserve(self) -> None:
        self.memory.fill()
        kept = 100 - self.system.left
        self.assertGreater(kept, 0)
        self.memory.report_shortage()
        self.assertEqual(self.system.left, 100)
        self.assertTrue(self.memory.is_enough())
        self.assertEqual(self.system.left, 100 - kept)

    def test_not_enough(self) -> None:
        """As long as most of the reserve cannot be taken, there is not enough, but nobody waits for longer than a second."""
        self.memory.fill()
        self.memory.report_shortage()
        self.system.left = 1
        self.assertFalse(self.memory.is_enough())
        self.system.left = 6
        self.assertTrue(self.memory.is_enough())
        self.system.left = 0
        with capturedLogs() as events:
            self.memory.report_shortage()
            self.system.left = 0
            self.system.now += 0.9
            self.assertFalse(self.memory.is_enough())
            self.system.now += 0.2
            self.assertTrue(self.memory.is_enough())
            self.memory.report_shortage()
            self.system.left = 0
            self.assertFalse(self.memory.is_enough())
        self.assertEqual(len(events), 0)  # it has been told, and is not over

    def test_log(self) -> None:
        with capturedLogs() as events:
            self.memory.fill()
            for _ in range(3):
                self.memory.report_shortage(ended=1)
                self.assertTrue(self.memory.is_enough())
                self.system.now += 0.5
            self.assertEqual(
                (said(events, "out of memory"), said(events, "available again")), (1, 0)
            )
            self.system.now += 0.5
            self.memory.is_enough()
            self.memory.is_enough()
            self.assertEqual(
                (said(events, "out of memory"), said(events, "available again")), (1, 1)
            )
            self.assertEqual(events[-1]["count"], 3)
            self.memory.report_shortage()
            self.assertEqual(said(events, "out of memory"), 2)

    def test_main_loop(self) -> None:
        ends: list[BaseException | None] = [MemoryError(), MemoryError(), None, KeyError()]

        class Reactor:
            @staticmethod
            def mainLoop() -> None:
                end = ends.pop(0)
                if end is not None:
                    raise end

        before = MEMORY._since
        self.addCleanup(setattr, MEMORY, "_since", before)
        loop: Any = Reactor()
        keep_running(loop)
        loop.mainLoop()
        self.assertEqual(len(ends), 1)
        self.assertRaises(KeyError, loop.mainLoop)


class ShortTest(TestCase):
    """Connections of Twisted's own transports while there is no memory."""

    def setUp(self) -> None:
        self.system = _System()
        self.patch(MEMORY, "_new_piece", self.system.give)
        self.patch(MEMORY, "_seconds", lambda: self.system.now)
        self.patch(MEMORY, "_pieces", [])
        self.patch(MEMORY, "_since", None)
        self.factory = PeerFactory()
        self.port: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        throttle_accepts(self.port, reactor, Descriptors())
        self.number: int = self.port.getHost().port

    def run_out(self) -> None:
        MEMORY.report_shortage()
        self.system.left = 0

    async def test_client(self) -> None:
        """A client that sends is broken off, one that does not stays, and a new one waits until there is memory."""
        sending, silent = [await connect(self, self.number) for _ in range(2)]
        first, second = await self.factory.peer(0), await self.factory.peer(1)
        with capturedLogs() as events:
            self.run_out()
            sending.send(b"x")
            await sending.is_lost()
            self.assertTrue(sending.was_reset())
            await first.is_lost()
            assert first.lost is not None
            self.assertIs(first.lost.type, OutOfMemory)
            waiting = await connect(self, self.number)
            await deferLater(reactor, 0.02)
            self.assertEqual(len(self.factory.peers), 2)
            self.system.left = 100
            waiting.send(b"x")
            await (await self.factory.peer(2)).has(1)
            silent.send(b"x")
            await second.has(1)
            await self.port.stopListening()
        self.assertEqual((said(events, "out of memory"), said(events, "cannot accept")), (1, 0))

    async def test_server(self) -> None:
        client = PeerClientFactory()
        connect_tcp(reactor, "127.0.0.1", self.number, client, 5, None)
        ours, theirs = await client.connected, await self.factory.peer()
        self.patch(ours, "dataReceived", self.fail_to_keep)
        theirs.send(b"x")
        await theirs.is_lost()
        self.assertTrue(theirs.was_reset())
        assert ours.lost is not None
        self.assertIs(ours.lost.type, OutOfMemory)

    async def test_unix_server(self) -> None:
        name = self.mktemp()
        factory = PeerFactory()
        port = reactor.listenUNIX(name, factory)
        self.addCleanup(port.stopListening)
        client = PeerClientFactory()
        connect_unix(reactor, name, client, 5)
        ours, theirs = await client.connected, await factory.peer()
        self.patch(ours.transport, "writeSomeData", self.fail_to_keep)
        ours.transport.writeSequence([b"x"])
        await theirs.is_lost()
        assert ours.lost is not None
        self.assertIs(ours.lost.type, OutOfMemory)

    async def test_end(self) -> None:
        """If there is no memory to end a connection, either, it is ended with what was kept in reserve."""
        client = await connect(self, self.number)
        server = await self.factory.peer()
        self.lack_once(server.transport, "stopWriting")
        client.reset()
        await server.is_lost()
        self.assertFalse(hasattr(server.transport, "socket"))

    async def test_plain_end(self) -> None:
        poller = Poller.for_reactor(reactor)
        port = listen_beside(self, poller, self.factory)
        client = await connect(self, port.getHost().port)
        server = await self.factory.peer()
        self.lack_once(poller, "closing")
        client.reset()
        await server.is_lost()
        self.assertFalse(hasattr(server.transport, "socket"))

    def lack_once(self, owner: Any, name: str) -> None:
        def method(*arguments: Any) -> Any:
            patched.restore()
            raise MemoryError(arguments)

        patched = self.patch(owner, name, method)

    def fail_to_keep(self, _data: bytes) -> None:
        raise MemoryError
