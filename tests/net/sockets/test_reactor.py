"""Turns of a reactor that serves a `Poller`: that of workers, and any other with the poller as a reader."""

import fcntl
import functools
import os
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.net.relay.reactors import PrivateReactor
from tests.support.kit import change_constants, for_each
from tests.support.peers import pair, reset
from txmux.client.io_runtime import IORuntime
from txmux.net.sockets import poller
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.net.sockets.poller import BATCH, READ, TROUBLE, WRITE, Poller, ReactorPoller


@implementer(IReadDescriptor)
class _Reader:
    def __init__(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ready = ready
        self.lost: list[object] = []

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self._ready()

    def logPrefix(self) -> str:
        return "reader"

    def connectionLost(self, reason: object) -> None:
        self.lost.append(reason)


@for_each("kind", ("workers", "epoll"))
class WorkersReactorTest(SynchronousTestCase):
    """That of workers, and another reactor, with the poller as a reader."""

    skip = None if poller.is_available() else "these need Linux"
    kind: str

    def setUp(self) -> None:
        private = self.enterContext(closing(PrivateReactor(self.kind)))
        self.reactor, self.turn = private.reactor, private.turn
        self.poller = Poller.for_reactor(self.reactor)
        self.served: list[int] = []

    def ready(self) -> int:
        ours, theirs = pair(self)
        theirs.send(b"x")
        return ours.fileno()

    def serve(self, descriptor: int, _events: int) -> None:
        self.served.append(descriptor)

    def test_turns(self) -> None:
        """Sockets that are always ready leave timers and other descriptors their turn, and all get theirs."""
        ends = [pair(self)[0] for _ in range(3 * BATCH)]
        for end in ends:
            descriptor = end.fileno()
            self.poller.watch(descriptor, WRITE, functools.partial(self.serve, descriptor))
            self.addCleanup(self.poller.unwatch, descriptor)
        readings: list[int] = []
        self.reactor.addReader(_Reader(self.ready(), lambda: readings.append(1)))
        for number in range(1, 9):
            timed: list[int] = []
            self.reactor.callLater(0, timed.append, 1)
            self.turn()
            self.assertEqual(timed, [1])
            self.assertLessEqual(len(self.served), number * BATCH)
        self.assertGreater(len(readings), 1)
        counts = [self.served.count(end.fileno()) for end in ends]
        self.assertLessEqual(max(counts) - min(counts), 1)

    def test_calls_made_or_moved_meanwhile(self) -> None:
        """A reactor that runs makes the calls that sockets ask it for in time, though the sockets never rest."""
        calls: list[str] = []
        ours, _ = pair(self)

        def serve(_: int) -> None:
            self.served.append(1)
            match len(self.served):
                case 3:
                    moved.reset(0)
                case 6:
                    self.reactor.callLater(0, calls.append, "made")
                case 9:
                    self.reactor.callFromThread(calls.append, "thread")
                case 12:
                    self.reactor.stop()

        moved = self.reactor.callLater(40 * 86_400, calls.append, "moved")
        self.poller.watch(ours.fileno(), WRITE, serve)
        self.addCleanup(self.poller.unwatch, ours.fileno())
        self.reactor.startRunning(installSignalHandlers=False)
        self.reactor.mainLoop()
        self.assertEqual(calls, ["moved", "made", "thread"])
        self.assertLess(len(self.served), 16)

    def test_calls_after(self) -> None:
        """Calls of handlers, readers and timers come soon, those for the end of the turn last; an error affects no other."""
        calls: list[str] = []

        def fail(*_: object) -> None:
            self.poller.after_turn(functools.partial(calls.append, "last"))
            self.poller.call_soon(functools.partial(calls.append, "soon"))
            raise ValueError

        def read() -> None:
            self.reactor.removeReader(reader)
            self.poller.call_soon(functools.partial(calls.append, "reader"))

        def handle(_: int) -> None:
            self.poller.unwatch(descriptor)
            fail()

        descriptor = self.ready()
        reader = _Reader(self.ready(), read)
        self.reactor.addReader(reader)
        self.poller.watch(descriptor, READ, handle)
        while len(calls) < 3:
            self.turn()
        self.assertEqual(sorted(calls), ["last", "reader", "soon"])
        self.assertLess(calls.index("soon"), calls.index("last"))
        self.reactor.callLater(0, fail)
        while len(calls) < 5:
            self.turn()
        self.assertEqual(sorted(calls[3:]), ["last", "soon"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_number_of_another(self) -> None:
        """Who gets the descriptor of one that is closed in the same batch is not told what that one was ready for."""
        for before, after in (("watch", "watch"), ("watch", "read"), ("read", "watch")):
            with self.subTest(before=before, after=after):
                self.check_number(before, after)

    def check_number(self, before: str, after: str) -> None:
        fresh, _ = pair(self)
        ends = [self.ready(), self.ready()]
        told: list[int] = []
        kept: dict[int, Any] = {}

        def close_other(descriptor: int) -> None:
            (other,) = {*ends} - {descriptor}
            for one in ends:
                if before == "read":
                    self.reactor.removeReader(kept[one])
                else:
                    self.poller.unwatch(one)
            os.dup2(fresh.fileno(), other)
            if after == "read":
                kept[other] = _Reader(other, lambda: told.append(other))
                self.reactor.addReader(kept[other])
            else:
                self.poller.watch(other, READ, told.append)
            self.served.append(other)

        for end in ends:
            if before == "read":
                kept[end] = _Reader(end, functools.partial(close_other, end))
                self.reactor.addReader(kept[end])
            else:
                self.poller.watch(end, READ, lambda _, end=end: close_other(end))  # type: ignore[misc]
        del self.served[:]
        while not self.served:
            self.turn()
        self.turn()
        self.assertEqual(told, [])
        if after == "read":
            self.reactor.removeReader(kept[self.served[0]])
        else:
            self.poller.unwatch(self.served[0])


class LongTurnTest(SynchronousTestCase):
    skip = None if poller.is_available() else "these need Linux"

    def test_what_came_in_time(self) -> None:
        """A timer that is due after a long turn of workers' reactor comes after what has come meanwhile."""
        reactor = self.enterContext(closing(PrivateReactor("workers"))).reactor
        sockets, calls = Poller.for_reactor(reactor), list[str]()
        (busy, waker), (ours, theirs) = pair(self), pair(self)

        def be_busy(_: int) -> None:
            sockets.unwatch(busy.fileno())
            theirs.send(b"answer")
            while reactor.seconds() < timeout.getTime():
                pass

        def read(_: int) -> None:
            sockets.unwatch(ours.fileno())
            calls.append("answer")

        def end() -> None:
            calls.append("time-out")
            reactor.stop()

        waker.send(b"x")
        sockets.watch(busy.fileno(), READ, be_busy)
        sockets.watch(ours.fileno(), READ, read)
        timeout = reactor.callLater(0.05, end)
        reactor.startRunning(installSignalHandlers=False)
        reactor.mainLoop()
        self.assertEqual(calls, ["answer", "time-out"])


class ReactorPollerTest(SynchronousTestCase):
    def poller_on(self, kind: str) -> tuple[ReactorPoller, PrivateReactor]:
        private = self.enterContext(closing(PrivateReactor(kind)))
        return ReactorPoller(private.reactor), private

    def first_event(self, kind: str, wanted: int, act: Callable[[socket.socket], object]) -> int:
        """Return what a handler is told first after its peer has done something."""
        poller, private = self.poller_on(kind)
        ours, theirs = pair(self, is_tcp=True)
        seen: list[int] = []
        poller.watch(ours.fileno(), wanted, seen.append)
        act(theirs)
        while not seen:
            private.turn()
        poller.unwatch(ours.fileno())
        self.assertEqual(private.reactor.getDelayedCalls(), [])
        return seen[0]

    def test_events(self) -> None:
        """Every reactor reports bytes, an end and a reset, also of a socket that is watched for nothing else."""
        change_constants(self, poller, _LOOK_EACH=0.02)
        for kind in ("epoll", "poll", "select", "asyncio", "workers"):
            for wanted, act, expected in (
                (READ, lambda peer: peer.send(b"x"), 1), (READ, lambda peer: peer.shutdown(socket.SHUT_WR), READ),
                (READ, reset, READ | TROUBLE), (WRITE, reset, WRITE | TROUBLE), (0, reset, TROUBLE),
            ):  # fmt: skip
                self.assertEqual(self.first_event(kind, wanted, act), expected, (kind, wanted))

    def test_watched_on(self) -> None:
        """A socket that has hung up is watched on as long as its handler wants that."""
        for kind in ("epoll", "poll", "select", "asyncio"):
            poller, private = self.poller_on(kind)
            ours, theirs = pair(self, is_tcp=True)
            seen: list[int] = []
            poller.watch(ours.fileno(), WRITE, seen.append)
            reset(theirs)
            while len(seen) < 5:
                private.turn()
            poller.unwatch(ours.fileno())

    def test_stop(self) -> None:
        """When the reactor stops, handlers are told nothing, and nothing is watched again."""
        poller, private = self.poller_on("select")
        ours, _ = pair(self, is_tcp=True)
        seen: list[int] = []
        poller.watch(ours.fileno(), WRITE, seen.append)
        private.reactor.disconnectAll()
        self.assertEqual((seen, private.reactor.getWriters()), ([], []))
        poller.unwatch(ours.fileno())

    def test_too_many(self) -> None:
        """With select(2), what it cannot watch is refused, and does not stop the rest; whatever watches sockets keeps to less."""
        poller, private = self.poller_on("select")
        self.addCleanup(setattr, DESCRIPTORS, "most", DESCRIPTORS.most)
        IORuntime(private.reactor)
        self.assertEqual(DESCRIPTORS.most, 1024)
        ours, theirs = pair(self, is_tcp=True)
        poller.most = fcntl.fcntl(ours, fcntl.F_DUPFD, 900)  # users may have 1,024
        self.addCleanup(os.close, poller.most)
        with self.assertRaisesRegex(OSError, "Too many open files"):
            poller.watch(poller.most, READ, print)
        seen: list[int] = []
        poller.watch(ours.fileno(), READ, seen.append)
        theirs.send(b"x")
        private.turn()
        self.assertEqual(seen, [1])
        poller.unwatch(ours.fileno())
