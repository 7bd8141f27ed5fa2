import threading
import time
from collections.abc import Generator
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import change_constants, reactor
from txmux import files
from txmux.net import turns
from txmux.net.turns import Turns, first_late, in_thread, outcome_in_thread, outcome_of_look


class TurnsTest(TestCase):
    async def test_run(self) -> None:
        """Others have their turn again and again while something long runs, which gives its result in the end."""
        turns: list[int] = []
        await deferLater(reactor, 0)  # it runs

        def steps() -> Generator[None, None, str]:
            for number in range(20):
                until = time.perf_counter() + 0.002
                while time.perf_counter() < until:
                    pass
                if not number % 5:
                    reactor.callLater(0, turns.append, number)
                yield
            self.assertGreaterEqual(len(turns), 3)
            return "done"

        self.assertEqual(await Turns().run(steps()), "done")


class StillTests(SynchronousTestCase):
    def test_nobody_waits_for_a_reactor_that_does_not_run(self) -> None:
        change_constants(self, turns, _PIECE=0.0)
        done = Deferred.fromCoroutine(Turns().collect(range(99)))
        self.assertEqual(self.successResultOf(done), [*range(99)])


class DeadDiskTest(TestCase):
    def setUp(self) -> None:
        change_constants(self, files, PATIENCE=0.05)
        change_constants(self, turns, _LOOK=0.02)
        self.is_back = threading.Event()
        self.before = set(threading.enumerate())
        self.jobs = turns.JobThread()
        self.patch(turns, "_thread", lambda *_: self.jobs)
        self.addCleanup(self.end_threads)  # before the patch is undone

    def end_threads(self) -> None:
        self.is_back.set()
        self.jobs.thread = threading.main_thread()  # the present or the next job is its last one
        self.jobs.jobs.put((int, Deferred(), SimpleQueue()))
        for thread in self.threads():
            thread.join()

    def threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self.before

    def read(self, name: str) -> str:
        with files.on_disk(Path(name)):
            self.is_back.wait()
        return name

    async def test_others_go_on(self) -> None:
        """A job that waits for a disk fails with its file, and what comes behind it is done by another thread."""
        dead = outcome_in_thread(self.read, "x")
        self.assertEqual(await in_thread(int), 0)
        _, error = await dead
        assert isinstance(error, TimeoutError)
        self.assertEqual(error.filename, "x")
        with self.assertRaises(TimeoutError):
            await in_thread(self.read, "x")  # which does not wait again
        self.assertEqual(len(self.threads()), 2)

    async def test_look(self) -> None:
        """Who asks for a look has the answer of a healthy disk at once, and waits a moment for a dead one, but for no look of others."""
        await in_thread(int)  # the reactor runs
        result, _ = self.successResultOf(outcome_of_look(str, "x", wait=60.0))
        self.assertEqual(result, "x")
        dead = outcome_of_look(self.read, "x", wait=0.001)
        self.assertNoResult(dead)
        other = outcome_of_look(str, "y", wait=60.0)
        self.assertNoResult(other)
        _, error = await dead
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(await other, ("y", None))

    async def test_many(self) -> None:
        """Few threads wait for dead disks; then all jobs fail until one is back."""
        for job in [outcome_in_thread(self.read, f"{number}/x") for number in range(10)]:
            _, error = await job
            self.assertIsInstance(error, TimeoutError)
        self.assertEqual(len(self.threads()), turns.MOST_LEFT + 1)
        self.is_back.set()
        while (found := await outcome_in_thread(self.read, "11"))[1] is not None:
            self.assertIsInstance(found[1], TimeoutError)
        self.assertEqual(found[0], "11")

    async def test_first_late(self) -> None:
        """Each dead disk is waited for once, and what is beside a file of it not at all."""
        await in_thread(int)  # the reactor runs
        tried: list[str] = []

        def check() -> None:
            late = None
            for name in ("a/x", "a/y", "b/x", "b/y"):
                try:
                    self.read(name)
                except TimeoutError as problem:
                    late = late or problem
                else:
                    tried.append(name)
            if late is not None:
                raise late

        late = await first_late(check)
        assert late is not None
        self.assertEqual((late.filename, len(self.threads())), ("a/x", 3))
        self.assertRaisesRegex(TimeoutError, "for 0.05 s when 'a/x' was read", self.read, "a/z")
        self.is_back.set()
        for thread in self.threads() - {self.jobs.thread}:
            thread.join()
        self.assertIsNone(await first_late(check))
        self.assertEqual(tried[-4:], ["a/x", "a/y", "b/x", "b/y"])

    async def test_no_room_for_another_thread(self) -> None:
        """As with few tasks for a service: who waits has an error, and jobs are done once there is room."""
        lack = Mock(side_effect=RuntimeError("can't start new thread"))
        patched = self.patch(threading.Thread, "start", lack)
        _, error = await outcome_in_thread(self.read, "x")
        self.assertIsInstance(error, TimeoutError)
        turns.start_thread()  # it is there
        patched.restore()
        while error is not None:
            _, error = await outcome_in_thread(int)
        self.assertEqual(len(self.threads()), 2)
