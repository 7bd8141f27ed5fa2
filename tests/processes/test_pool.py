"""Flows of UDP among the workers of a pool, as the supervisor moves them."""

import socket
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.support.each import for_each
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.net.channel.message import Message
from txmux.processes.supervisor.moving import WorkerHandover
from txmux.processes.supervisor.pool import WorkerPool
from txmux.processes.upgrade.worker_transfers import GivingError, Moved, WorkerTransfers, close


class _Worker:
    """A worker that serves, and does what a test says.

    Args:
        number: Counted from 0.

    Attributes:
        heard: What it was told and asked, in its order.
        asked: What it has yet to answer, by its kind.
    """

    ready = answers = has_served = True
    hangs = ""
    is_silent = is_starting = False
    connections = lost = 0
    is_late = is_adopted = False
    column: Any = None
    pid = 1

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard: list[str] = []
        self.asked: dict[str, Deferred[Any]] = {}

    def report_answered(self, *, answered: bool) -> None:
        """It does not matter here."""

    def send(self, message: Message, **values: Any) -> None:
        message.read(values, 0)  # all that it has to have
        self.heard.append(message.kind)

    def ask(self, message: Message, **_: Any) -> Deferred[Any]:
        self.heard.append(message.kind)
        answer: Deferred[Any] = Deferred()
        self.asked[message.kind] = answer
        return answer

    def retire(self) -> None:
        self.heard.append("retire")

    def attach(self, _: object) -> Deferred[Any]:
        return self.ask(messages.ATTACH)

    def to_be_adopted(self, _: float) -> dict[str, Any]:
        return {}

    def look(self) -> None:
        self.heard.append("look")

    def start(self) -> None:
        self.ready = False
        self.heard.append("start")

    def kill_hung(self, why: str, more: str) -> None:
        self.heard.append(f"killed: {why}{more}")

    def answer(self, kind: str) -> None:
        self.asked.pop(kind).callback(None)


class PoolTest(SynchronousTestCase):
    def test_goes_on_after_an_error(self) -> None:
        make: Any = _Worker
        clock, done = Clock(), []

        def fail() -> None:
            done.append(1)
            raise ZeroDivisionError

        pool = WorkerPool(make, clock, fail)
        lacking, first = make(2), make(1)
        self.patch(lacking, "look", Mock(side_effect=MemoryError))
        pool.workers += [lacking, first]
        pool.watch()
        clock.pump([1.0] * 3)
        pool.stop_watching()
        self.assertEqual(len(done), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        failing = ["look at worker 2", "do what is due each second"]
        self.assertEqual([*pool.recurring.failing], failing)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertEqual(first.heard, ["look"] * 3)
        pool.workers.remove(lacking)
        pool.retiring.append(lacking)
        pool.retired(lacking)
        self.assertEqual([*pool.recurring.failing], failing[1:])

    def test_worker_that_stays_after_all(self) -> None:
        """A reload does not wait for the end of a worker that was asked to leave, and has got connections of others."""
        make: Any = _Worker
        pool, worker = WorkerPool(make, Clock()), make(1)
        pool.retiring.append(worker)
        worker.is_leaving = True
        settled = pool.settled()
        self.assertNoResult(settled)
        worker.is_leaving = False
        pool.changes.check()
        self.successResultOf(settled)

    def test_worker_that_ends_is_reported(self) -> None:
        """An upgrade during which a worker ends with connections is not complete, and says which worker that was.

        One whose connections have moved by an earlier hand-over, or have ended, is no loss.
        """
        ended = "worker 1 ended before all its connections had moved"
        for at_the_end, lost in (
            (1, 0),
            (0, 1),
            (0, 0),
        ):  # its end may be known before that of the channel
            worker: Any = _Worker(1)
            worker.connections = 1
            takers: Any = SimpleNamespace(takers=0, pass_ends=lambda *_: None)
            handover = WorkerHandover(worker, takers, lambda: True)
            worker.connections, worker.lost = at_the_end, lost
            worker.asked["hand_over"].errback(PeerGoneError())
            self.successResultOf(handover.done)
            report = Moved.by([handover]).report(1, 0.1, lambda _: 30.0, [])
            is_lost = bool(at_the_end or lost)
            self.assertEqual(report.details["complete"], not is_lost)
            self.assertEqual(ended in report.changes, is_lost)


def _two_workers(clock: Clock | None = None) -> tuple[WorkerPool, _Worker, _Worker]:
    make: Any = _Worker
    pool = WorkerPool(make, clock or Clock())
    workers: Any = [_Worker(1), _Worker(2)]
    pool.workers += workers
    return pool, *workers


class HungTest(SynchronousTestCase):
    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.pool, self.first, self.second = _two_workers(self.clock)
        self.first.hangs = "hangs"

    def replaced(self, worker: Any, most: int = 16) -> bool:
        with capturedLogs():
            return self.pool.replace_hung(worker, "hangs", most)

    def test_successor_first(self) -> None:
        """Another one that hangs waits for its turn."""
        self.assertFalse(self.pool.lives())
        self.assertTrue(self.replaced(self.first))
        successor: Any = self.pool.workers[2]
        self.assertFalse(self.pool.lives())
        successor.is_starting = True
        self.assertTrue(self.pool.lives())
        self.assertFalse(self.replaced(self.second))
        self.assertEqual((self.first.heard, self.second.heard), ([], []))
        self.assertEqual((successor.number, successor.heard), (3, ["start"]))
        # One that a reload adds has yet to show that workers can serve by its rules.
        self.pool.add(1)
        self.assertEqual((successor.has_served, self.pool.added[0].has_served), (True, False))

    def test_no_room_for_a_successor(self) -> None:
        """It is killed first, but only while the others serve; adopted ones take no room."""
        self.second.ready = False
        self.assertFalse(self.replaced(self.first, 2))
        self.assertEqual(self.first.heard, [])
        self.second.ready = True
        self.assertFalse(self.replaced(self.first, 2))
        self.assertEqual(self.first.heard, ["killed: hangs, and another one is started at once"])
        self.assertEqual(len(self.pool.workers), 2)
        adopted: Any = _Worker(3)
        adopted.is_adopted = True
        self.pool.retiring.append(adopted)
        self.assertTrue(self.replaced(self.first, 3))

    def test_own_ones_alone_count(self) -> None:
        """Adopted ones have places of their own in the limits: they do not keep one that hangs, or was asked to end, from being replaced."""
        adopted: Any = [_Worker(number) for number in range(3, 21)]
        for worker in adopted:
            worker.is_adopted = True
        self.pool.retiring += adopted
        most = [2]
        workers: Any = self.first, self.second
        first, second = workers
        with capturedLogs():
            self.pool.replace_soon(first, lambda: most[0])
            self.clock.advance(0.4)
            most[0] = 3  # a process has ended meanwhile
            self.clock.advance(0.1)
        self.assertEqual([one.number for one in self.pool.workers], [1, 2, 21])
        self.pool.replace_soon(second, lambda: most[0])
        self.clock.advance(0.5)
        self.assertEqual((len(self.pool.workers), self.second.heard), (3, ["stop"]))

    def test_condition(self) -> None:
        condition = self.pool.condition()
        self.assertFalse(condition.none_serves or condition.none_answers or condition.silent)
        self.first.is_silent = True
        self.assertEqual(self.pool.condition().silent, [(1, 1)])
        self.assertFalse(self.pool.condition().none_answers)
        self.second.is_silent = True
        self.assertTrue(self.pool.condition().none_answers)
        self.first.ready = self.second.ready = False
        self.assertFalse(self.pool.condition().none_answers)
        self.assertTrue(self.pool.condition().none_serves)
        self.assertFalse(self.pool.lives())
        self.first.hangs, self.second.is_starting = "", True
        self.assertFalse(self.pool.condition().none_serves)
        self.assertTrue(self.pool.lives())


class FlowsTest(SynchronousTestCase):
    can_answer: bool

    @override
    def setUp(self) -> None:
        self.pool, self.first, self.second = _two_workers()
        self.pool.share_datagrams()

    def giving(self) -> Deferred[Any]:
        supervisor: Any = SimpleNamespace(pool=self.pool)
        giving = Deferred.fromCoroutine(WorkerTransfers(supervisor).give())
        return giving.addCallback(lambda given: close(given[1]))

    @for_each("can_answer", (True, False))
    def test_waits_for_flows(self) -> None:
        """No worker is given away before all flows are with the one that reads datagrams, if that can answer."""
        giving = self.giving()
        self.assertNotIn("attach", self.first.heard + self.second.heard)
        if self.can_answer:
            self.first.answer("flows_moved")
        else:
            self.first.asked.pop("flows_moved").errback(PeerGoneError())
        self.assertNoResult(giving)
        self.first.answer("attach")
        self.second.answer("attach")
        self.successResultOf(giving)
        self.assertFalse(self.pool.accepting)

    def test_worker_cannot_be_given(self) -> None:
        """Then none is, and the next ones accept clients as before; one that has just ended is no reason."""
        giving = self.giving()
        self.first.answer("flows_moved")
        self.first.asked.pop("attach").errback(PeerGoneError())
        self.second.asked.pop("attach").errback(ChannelError("no"))
        failure = self.failureResultOf(giving, GivingError)
        self.assertEqual(failure.getErrorMessage(), "worker 2: no")
        self.assertTrue(self.pool.accepting)

    def test_out_of_memory(self) -> None:
        """All stay, and no end of a channel is left open."""
        self.patch(self.second, "to_be_adopted", Mock(side_effect=MemoryError))
        pairs: list[socket.socket] = []
        made = socket.socketpair

        def make() -> tuple[socket.socket, socket.socket]:
            pairs.extend(pair := made())
            return pair

        self.patch(socket, "socketpair", make)
        giving = self.giving()
        self.first.answer("flows_moved")
        self.first.answer("attach")
        self.second.answer("attach")
        self.failureResultOf(giving, MemoryError)
        self.assertEqual([one.fileno() for one in pairs], [-1] * 4)
        self.assertTrue(self.pool.accepting)

    def test_worker_that_ends_meanwhile(self) -> None:
        """Until the last one has answered, another may have been replaced; the file of its counters is closed then."""
        for replaced in (False, True):
            pool, first, second = _two_workers()
            first.pid, first.column = 7, SimpleNamespace(descriptor=8)
            supervisor: Any = SimpleNamespace(pool=pool)
            giving = Deferred.fromCoroutine(WorkerTransfers(supervisor).give())
            first.answer("attach")
            if replaced:
                first.pid = 9
            second.answer("attach")
            rows, ends, files = self.successResultOf(giving)
            close(ends)
            given = [second] if replaced else [first, second]
            self.assertEqual((len(ends), files), (len(given), [] if replaced else [8]))
            self.assertEqual(rows, [worker.to_be_adopted(0.0) for worker in given])

    def test_knows_which_flows(self) -> None:
        """The next reader awaits flows before it is given the channel by which they come, and not once more after that."""
        self.pool.workers.reverse()
        self.pool.resize(1)
        heard = self.second.heard
        self.assertIn("take_datagrams", heard)
        last = max(index for index, kind in enumerate(heard) if kind == "await_flows")
        self.assertLess(last, heard.index("take_over"))
        self.assertIn("hand_over", self.first.heard)

    def test_next_reader_stays(self) -> None:
        """Of workers that are replaced at once, none gets the flows of another: they would have to move on while they come."""
        workers: Any = self.pool.workers
        self.pool.replace(workers[0])
        self.pool.replace(workers[1])
        successor = workers[2]
        successor.ready = True
        self.pool.start_accepting(successor)
        serving = self.pool.serving()
        successor.answer("accept")
        self.assertNoResult(serving)  # the other one has not started
        self.assertEqual(self.pool.retiring, [self.first])
        self.assertEqual(self.second.heard[-1], "leave_datagrams")
        self.assertIn("take_datagrams", successor.heard)

    def test_one_worker_that_accepts_is_enough(self) -> None:
        """Another one may have just been started; but what a worker lacks of backends, its clients lack."""
        closed = [f"[listen {name}]: no client is accepted" for name in "ab"]
        idle = "[backend b]: no server is up"
        for first, second, found in (
            ([*closed, idle], [], [idle]),
            (closed[:1], closed, closed[:1]),
            ([], [], []),
        ):
            missing = Deferred.fromCoroutine(self.pool.missing())
            for worker, lines in ((self.first, first), (self.second, second)):
                worker.asked.pop("missing").callback(lines)
            self.assertEqual(self.successResultOf(missing), found)
