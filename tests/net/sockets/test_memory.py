import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.net.sockets.scarcity import listen_beside
from tests.support.kit import change_constants, for_each
from tests.support.peers import Peer, PeerClientFactory, PeerFactory, connect, reactor
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.memory import MEMORY, Memory, OutOfMemory, keep_running
from txmux.net.sockets.poller import Poller, ReactorPoller


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
        def counts() -> tuple[int, int]:
            return said(events, "out of memory"), said(events, "available again")

        with capturedLogs() as events:
            self.memory.fill()
            for _ in range(3):
                self.memory.report_shortage(ended=1)
                self.assertTrue(self.memory.is_enough())
                self.system.now += 0.5
            self.assertEqual(counts(), (1, 0))
            self.system.now += 0.5
            self.memory.is_enough()
            self.memory.is_enough()
            self.assertEqual((counts(), events[-1]["count"]), ((1, 1), 3))
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

        self.addCleanup(setattr, MEMORY, "short_since", MEMORY.short_since)
        loop: Any = Reactor()
        keep_running(loop)
        loop.mainLoop()
        self.assertEqual(len(ends), 1)
        self.assertRaises(KeyError, loop.mainLoop)


@for_each("make_poller", (Poller.for_reactor, ReactorPoller))
class ShortTest(TestCase):
    make_poller: Callable[[Any], Poller]

    def setUp(self) -> None:
        self.system = _System()
        self.patch(MEMORY, "_new_piece", self.system.give)
        self.patch(MEMORY, "_seconds", lambda: self.system.now)
        change_constants(self, MEMORY, _pieces=[], short_since=None)
        self.factory = PeerFactory()
        self.poller = self.make_poller(reactor)
        self.port = listen_beside(self, self.poller, self.factory)
        self.number: int = self.port.getHost().port

    async def connected(self) -> tuple[Peer, Peer]:
        factory, name = PeerClientFactory(), ("127.0.0.1", self.number)
        SocketConnector(self.poller, reactor, socket.AF_INET, name, factory).connect(60)
        return await factory.connected, await self.factory.peer()

    async def test_clients(self) -> None:
        """One whose bytes cannot be kept is broken off, others stay, and a new one waits until there is memory."""
        sending, silent = [await connect(self, self.number) for _ in range(2)]
        first, second = await self.factory.peer(0), await self.factory.peer(1)
        self.patch(first, "dataReceived", self.fail_to_keep)
        with capturedLogs() as events:
            sending.send(b"x")
            await sending.is_lost()
            self.assertTrue(sending.was_reset())
            await self.is_broken_off(first)
            self.system.left = 0
            waiting = await connect(self, self.number)
            await deferLater(reactor, 0.02)
            self.assertEqual(len(self.factory.peers), 2)
            self.system.left = 100
            waiting.send(b"x")
            await (await self.factory.peer(2)).has(1)
            await silent.tell(second, b"x")
            await self.port.stopListening()
        self.assertEqual((said(events, "out of memory"), said(events, "cannot accept")), (1, 0))

    async def test_server(self) -> None:
        ours, theirs = await self.connected()
        self.patch(ours.transport, "writeSomeData", self.fail_to_keep)
        ours.transport.writeSequence([b"x"])
        await theirs.is_lost()
        self.assertTrue(theirs.was_reset())
        await self.is_broken_off(ours)

    async def test_end(self) -> None:
        """If there is no memory to end a connection, either, it is ended with what was kept in reserve."""
        client, server = await self.connected()

        def fail_once(descriptor: int) -> None:
            patched.restore()
            raise MemoryError(descriptor)

        patched = self.patch(self.poller, "closing", fail_once)
        await server.is_lost(client.reset)
        self.assertFalse(hasattr(server.transport, "socket"))

    async def is_broken_off(self, peer: Peer) -> None:
        await peer.is_lost()
        assert peer.lost is not None
        self.assertIs(peer.lost.type, OutOfMemory)

    def fail_to_keep(self, _data: bytes) -> None:
        raise MemoryError
