"""Workers are asked whether they do their work, and replaced if they do not answer, or end."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs, formatEvent

from tests.support.kit import RULES, SupervisedTestCase, WorkersTestCase, eventually, set_limits
from tests.support.proc import halt, halted, has_connection, is_gone
from tests.support.supervised import channel_of
from txmux.net.channel.channel import ChannelError
from txmux.net.channel.message import Message
from txmux.net.channel.messages import ACCEPT, IMPORT
from txmux.processes.liveness import ProcessActivity
from txmux.processes.supervisor import worker
from txmux.processes.supervisor.worker import Worker
from txmux.processes.upgrade.worker_transfers import WorkerTransfers


def _at_work() -> AbstractContextManager[object]:
    """Have each process look as if it had something to do."""
    return patch.object(worker, "activity_of", lambda _: ProcessActivity("R", 0.0))


@pytest.mark.by_turns(each=True)
class SilentTest(SupervisedTestCase):
    async def test_worker_that_goes_on_is_not_killed(self) -> None:
        """It has a successor by then, to which its connections move."""
        before = await self.run_two()
        pool = self.supervisor.pool
        first, _ = pool.workers
        self.halt(first.pid)
        with capturedLogs() as events:
            await self.pass_until(lambda: self.said(events))
            os.kill(first.pid, signal.SIGCONT)
            await self.until(lambda: not (first.awaits_answer or first in pool.workers))
            # It is asked again, each time later, for as long as the others have not said what they take.
            while first in pool.all():
                await self.pass_by(1, *pool.workers)
        self.assertEqual(len(self.said(events)), 1)
        self.assertNotIn(before[0], self.pids())
        # A silent one that is ending is killed.
        silent, _ = self.supervisor.pool.workers
        self.halt(silent.pid)
        stopping = self.running.stopService()
        with capturedLogs() as events:
            await self.until(lambda: len(self.supervisor.pool.all()) <= 1)
            await self.pass_until(lambda: self.said(events))
            await stopping
        why = "has done nothing for 10 s, though it could run; it is killed"
        self.assertEqual(self.said(events), [f"worker {silent.number} {why}"])

    async def test_all_halted_are_replaced_one_after_another(self) -> None:
        before = await self.run_two()
        for pid in before:
            self.halt(pid)
        pool, workers = self.supervisor.pool, [*self.supervisor.pool.workers]
        with capturedLogs() as events:
            await self.pass_until(lambda: self.said(events))
            self.assertLess(len(pool.workers), 4)  # or the successor serves already
            # Which comes first depends on whether it has turned in the second in which it was halted.
            await self.until(lambda: len({*workers} - {*pool.workers}) == 1)
            self.assertFalse(any(map(is_gone, before)))
            (other,) = {*workers} & {*pool.workers}
            await self.pass_until(lambda: len(self.said(events)) > 2)
            self.assertFalse(is_gone(other.pid))
            await self.until(lambda: not {*workers} & {*pool.workers})
            await self.pass_until(lambda: len(self.said(events)) > 3)
            await self.until(lambda: all(map(is_gone, before)))
        self.assertEqual(len(self.said(events)), 4)
        serving = [worker for worker in pool.all() if worker.ready and worker.answers]
        self.assertEqual(serving, pool.workers)

    async def pass_until(self, condition: Callable[[], object]) -> None:
        """Let at most twenty seconds pass until something is so: the first may show a turn from before.

        What is done then may take the kernel longer than all of them, which take no time.
        """
        for _ in range(20):
            if not condition():
                await self.pass_by(1)
        await self.until(condition)

    def halt(self, pid: int) -> None:
        halt(pid)
        self.addCleanup(self.kill, pid)  # or the service would not stop

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def said(self, events: Sequence[dict[str, Any]]) -> list[str]:
        return [text for text in map(formatEvent, events) if re.match(r"worker \d has done", text)]

    async def test_successor_that_hangs_is_replaced(self) -> None:
        """It is halted when it serves, but has not begun to accept clients: the one before it is not left for ever."""
        before = await self.run_two()
        pool, (first, second) = self.supervisor.pool, self.supervisor.pool.workers
        self.halt(first.pid)
        ask, asked = Worker.ask, Deferred[None]()

        def ask_unless_to_accept(its: Worker, what: Message, **how: Any) -> Deferred[Any]:
            return asked if what is ACCEPT else ask(its, what, **how)

        with capturedLogs() as events:
            # From before it starts, since it may accept clients within the second in which it does.
            with patch.object(Worker, "ask", ask_unless_to_accept):
                await self.pass_until(lambda: len(pool.workers) > 2)
                third = pool.workers[2]
                await self.until(lambda: third.ready)
            halted_one = third.pid
            self.halt(halted_one)
            await self.pass_until(lambda: is_gone(halted_one))
            await self.until(lambda: third.ready and first not in pool.workers)
            await self.pass_until(lambda: is_gone(before[0]))
        self.assertEqual(pool.workers, [second, third])
        why = "has done nothing for 10 s, though it could run; it is killed"
        self.assertIn(f"worker 3 {why}, and another one is started at once", self.said(events))

    async def test_start_that_takes_long_or_fails(self) -> None:
        # If it works for more than a minute, nobody says that it does not serve, or gives up a reload that needs it.
        await self.run_two()
        pool = self.supervisor.pool
        with _at_work():
            pool.resize(3)
            *others, third = pool.workers
            await self.until(lambda: third.pid)
            self.halt(third.pid)
            serving = Deferred.fromCoroutine(self.supervisor.all_serve())
            await self.pass_by(90, *others)
            self.assertNoResult(serving)
            os.kill(third.pid, signal.SIGCONT)
            await self.until(lambda: serving.called)
        self.assertEqual(await serving, [])
        # If it fails, it is waited for as long as another attempt may help.
        pool.resize(4)
        fourth = pool.workers[3]
        await self.until(lambda: fourth.pid)
        self.halt(fourth.pid)
        with capturedLogs():
            serving = Deferred.fromCoroutine(self.supervisor.all_serve())
            fourth.failed_starts = 2
            await self.pass_by(59, *pool.workers[:3])
            self.assertNoResult(serving)
            await self.pass_by(1)
            [why] = await serving
        self.assertIn("not all workers serve after 60 s", why)

    async def test_slow_worker_is_waited_for(self) -> None:
        """In an upgrade, it takes long to accept clients, but has something to do; one that is halted is not waited for."""
        first, _ = await self.run_two()
        _, second = self.supervisor.pool.workers
        self.halt(first)
        with _at_work():
            accepting = Deferred.fromCoroutine(WorkerTransfers(self.supervisor).accept())
            await self.pass_by(20, second)
        self.assertNoResult(accepting)
        os.kill(first, signal.SIGCONT)
        await accepting
        await self.pass_by(2, *self.supervisor.pool.workers)
        halt(first)
        accepting = Deferred.fromCoroutine(WorkerTransfers(self.supervisor).accept())
        await self.pass_by(5, second)
        failure = self.failureResultOf(accepting, ChannelError)
        self.assertEqual(failure.getErrorMessage(), "worker 1: does not answer")

    async def test_no_starter(self) -> None:
        """Until there is one again, workers cannot start: that is said once of each, and is no restart."""
        await self.run_two()
        workers = self.supervisor.pool.workers
        starter, pids = self.starter(), self.pids()
        with capturedLogs() as events, patch.object(self.supervisor.starter, "_start_again"):
            os.kill(starter, signal.SIGKILL)
            await self.until(lambda: not self.starter())
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            await self.until(lambda: not any(one.pid for one in workers))
            for _ in range(20):
                self.time.advance(0.5)
            restarts = len(self.supervisor.state.ended_workers)
        said = [text for text in map(formatEvent, events) if "cannot be started" in text]
        self.assertEqual(len(said), 2, said)
        self.assertEqual(restarts, 3)  # the ends of the starter and of both workers
        self.supervisor.starter._start_again()
        self.time.advance(0.5)
        await self.until(self.supervisor.pool.are_ready)
        # One that an upgrade stops, and then the end of the service, reports its end to both.
        await gatherResults([one.stop() for one in self.supervisor.pool.leave() * 2])

    async def test_halted_worker_is_replaced_once_another_one_serves(self) -> None:
        """Until then it keeps its clients; and nothing happens to the other one. The sleep of the machine does not count."""
        before = await self.run_two()
        self.time.advance(3600)
        await self.pass_by(1, *self.supervisor.pool.workers)
        first, second = self.supervisor.pool.workers
        await self.pass_by(12, first, second)
        self.assertEqual(self.pids(), before)
        self.halt(first.pid)
        with capturedLogs() as events:
            await self.pass_by(9, second)
            self.assertEqual(self.pids(), before)
            self.assertTrue(second.answers)
            self.assertFalse(first.answers)
            self.assertTrue(first.is_silent)
            await self.pass_until(lambda: self.said(events))
            (*_, third) = self.supervisor.pool.workers
            await self.until(lambda: first not in self.supervisor.pool.workers)
            self.assertFalse(is_gone(before[0]))
            self.assertTrue(third.ready)
            await self.pass_until(lambda: len(self.said(events)) > 1)
            await self.until(lambda: first not in self.supervisor.pool.all())
        self.assertEqual(self.said(events), [
            "worker 1 has done nothing for 10 s, though it could run; worker 3 takes its place",
            "worker 1 has done nothing for 11 s, though it could run; it is killed",
        ])  # fmt: skip
        self.assertEqual(self.pids(), [before[1], third.pid])
        # So is one that turns, but has left a question unanswered for ten turns.
        report = second.report_answered
        with patch.object(Worker, "report_answered"):  # it has answered the supervisor
            await self.pass_by(1, second, third)
            report(answered=False)
            for turns, is_silent in ((9, False), (1, True)):
                await self.pass_by(turns, second, third)
                self.assertEqual(second.is_silent, is_silent)

    async def test_cut_off(self) -> None:
        """One that lives, but without its channel, is killed and replaced: when it has not answered, or when its end would not be reported."""
        first, second = await self.run_two()
        pool = self.supervisor.pool
        workers = [*pool.workers]
        with capturedLogs():
            self.cut_off(workers[0])
            # Its successor may serve, and it be gone, within one of these seconds.
            await self.pass_until(lambda: {*pool.all()} - {*workers})
            await self.until(lambda: workers[0] not in pool.workers)
            await self.pass_by(2, workers[1])
            await self.until(lambda: pool.all() == pool.workers and pool.are_ready())
            self.cut_off(workers[1])
            os.kill(self.starter(), signal.SIGKILL)
            await self.until(lambda: second not in self.pids() and workers[1].ready)
        await self.until(lambda: is_gone(first) and is_gone(second))

    def cut_off(self, worker: Worker) -> None:
        """Have a worker's channel closed while it is halted, so that it does not end by itself."""
        halt(worker.pid)
        channel_of(worker).break_off()

    async def test_starter(self) -> None:
        """So is the process of which workers are forked after ten seconds, or a minute if it imports, as on a slow disk; they go on."""
        for is_importing, seconds, lives, more in ((False, 10, 10, 1), (True, 60, 59, 2)):
            before = await self.run_two()
            workers, starter = self.supervisor.pool.workers, self.starter()
            await self.pass_by(16, *workers)
            halt(starter)
            if is_importing:
                self.starter_connection().have_it(IMPORT, modules=["json"])
            with capturedLogs():
                await self.pass_by(lives, *workers, starter=False)
                self.assertFalse(is_gone(starter))
                await self.pass_by(more, *workers, starter=False)
                await self.until(lambda: self.starter() not in {0, starter})  # noqa: B023
            self.assertTrue(is_gone(starter))
            self.assertEqual(self.pids(), before)
            ((_, number, how),) = self.supervisor.state.ended_workers
            self.assertEqual(number, 0)
            self.assertEqual(how, f"has done nothing for {seconds} s, though it could run")
            await self.stop()


@pytest.mark.by_turns(each=True)
class HangTest(WorkersTestCase):
    def test_reload_does_not_wait_for_it(self) -> None:
        """The others have the new rules, which it gets when it goes on, or its successor has."""
        for silent, goes_on in ((3600, True), (4, False)):
            set_limits(self, {"processes.liveness.MOST_SILENT": silent})
            route = "[route one]\nmatch = ssh\nbackend = close\n"
            mux = self.upgrading(f"{RULES}{route}", "workers = 2", admin=True)
            first, second = mux.workers
            halt(first)
            before = mux.ask_to_reload(("match = ssh", "match = tls"))
            mux.child.wait_for(r"worker 1 is halted \(SIGSTOP\); the reload goes on without it")
            eventually(lambda: "match = tls" in str(mux.api("rules")), "they are in force")  # noqa: B023
            if goes_on:
                os.kill(first, signal.SIGCONT)
            self.assertIn("1 route changed (one)", mux.reloaded(before))
            if goes_on:
                its = "'generation': 2"
                eventually(lambda: str(mux.api("status")["workers"]).count(its) == 2, "it has them")  # noqa: B023
                with halted([second]), mux.connect() as client:  # it still accepts clients
                    client.sendall(b"x")
                    self.assertEqual(client.recv(1), b"")
                # The next one waits for it, as for any other.
                mux.reload(("match = tls", "match = ssh"))
            self.assertEqual(mux.output.count("worker 1 is halted"), 1)
            eventually(lambda: len(mux.workers) == 2, "there are two")  # noqa: B023
            self.assertEqual(first in mux.workers, goes_on)
            self.assertIn(second, mux.workers)
            self.assertEqual(mux.attention("reload"), [])
            mux.stop()

    def test_connections_of_one_that_catches_up(self) -> None:
        """The reload counts them among those that keep older rules, and ends those of removed routes."""
        settings = "workers = 2\ndrain_removed = yes\ndrain_timeout = 1s"
        mux, server = self.start_relaying(settings)
        pairs = [self.relayed(mux, server) for _ in range(4)]
        (its,) = (pid for pid in mux.workers if has_connection(pid, pairs[0][1]))
        halt(its)
        before = mux.ask_to_reload(("route all", "route other"))
        mux.child.wait_for("the reload goes on without it")
        os.kill(its, signal.SIGCONT)
        self.assertIn("; 4 connections keep older rules", mux.reloaded(before))
        self.assertEqual({line["reason"] for line in mux.take(4)}, {"drained"})


class StartTest(SupervisedTestCase):
    """Each step in which a worker is started fails once: it is logged, and tried again."""

    async def test_memory(self) -> None:
        """To fork, and for the rules."""
        for what, why in (
            ("fork", "be started: there is no memory left"),
            ("", "start: MemoryError"),
        ):
            before = await self.run_two()
            supervisor, worker = self.supervisor, self.supervisor.pool.workers[0]
            owner: Any = supervisor.starter if what else supervisor
            said = f"worker 1 cannot {why}; another one is started in 1 s"
            failing = patch.object(owner, what or "start_message", side_effect=MemoryError)
            with capturedLogs() as events, failing:
                os.kill(before[0], signal.SIGKILL)
                await self.until(lambda: said in map(formatEvent, events))  # noqa: B023
            self.time.advance(1)
            await self.until(lambda: worker.ready and worker.pid != before[0])  # noqa: B023
            await self.stop()
