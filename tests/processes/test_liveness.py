"""Who hangs is judged by what it does."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import change_constants, eventually
from txmux.processes import liveness
from txmux.processes.liveness import (
    HangDetector,
    ProcessActivity,
    activity_of,
    activity_of_family,
    activity_of_threads,
)

_SLEEPS, _HALTED, _ON_DISK, _READY, _ENDED = "STDRZ"


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


class DetectorTest(SynchronousTestCase):
    def judged(
        self, looks: Iterable[ProcessActivity | None], *, at_work: bool = False, **more: bool
    ) -> list[str]:
        """Return the verdict after each look, the first of which sees that the loop has turned."""
        detector, found = HangDetector(), []
        detector.observe(ProcessActivity(_SLEEPS, 0.0), has_turned=True)
        for activity in looks:
            detector.observe(activity, has_turned=False, **more)
            found.append(detector.why(at_work=at_work))
        return found

    def assert_at(self, number: int, found: list[str], why: str) -> None:
        """Check that the verdict is none before this look, and which it is then."""
        self.assertEqual(found[: number - 1], [""] * (number - 1))
        self.assertEqual(found[number - 1], why)

    def test_waits(self) -> None:
        # It sleeps in a call, is halted, or waits for a dead disk.
        for state in (_SLEEPS, _HALTED, _ON_DISK, "t"):
            found = self.judged([ProcessActivity(state, 0.0)] * 10)
            self.assert_at(10, found, "has done nothing for 10 s, though it could run")
            found = self.judged([ProcessActivity(state, 0.0)] * 60, at_work=True)
            self.assert_at(60, found, "has done nothing for 60 s, though it could run")
        # Where the system does not show what a process does, it has the longer time.
        found = self.judged([None] * 60)
        self.assert_at(60, found, "has done nothing for 60 s, though it could run")
        # It hangs in calls that wait, with a little work in between: what it has waited for is added up.
        looks = [ProcessActivity(_SLEEPS, number // 2) for number in range(30)]
        self.assertTrue(self.judged(looks)[-1])
        # No message reaches it: it might as well hang; its end is reported elsewhere.
        looks = [ProcessActivity(_READY, float(number)) for number in range(10)]
        self.assertTrue(self.judged(looks, is_cut_off=True)[-1])
        looks = [ProcessActivity(_ENDED, 0.0)] * 100
        self.assertEqual({*self.judged(looks, is_cut_off=True), *self.judged(looks)}, {""})

    def test_works_for_long(self) -> None:
        # Others have it, or the quota is used up: it does not hang, however long that lasts.
        self.assertEqual({*self.judged([ProcessActivity(_READY, 0.0)] * 10_000)}, {""})
        # What counts is its processor time: at a twentieth of a core, a turn that takes 19 s of it lasts for six minutes.
        slow = [ProcessActivity(_READY, number / 20) for number in range(19 * 20)]
        self.assertEqual({*self.judged(slow)}, {""})
        pages = [ProcessActivity(_ON_DISK, 0.0, number) for number in range(1000)]
        self.assertEqual({*self.judged(pages)}, {""})
        # An endless loop.
        for seconds in (1, 20):
            looks = [
                ProcessActivity(_READY, number / seconds) for number in range(1, 200 * seconds)
            ]
            why = "has used 20 s of processor time without answering"
            self.assert_at(20 * seconds, self.judged(looks), why)
            self.assert_at(
                120 * seconds, self.judged(looks, at_work=True), why.replace("20", "120")
            )

    @given(st.lists(st.tuples(st.sampled_from("SDTR"), st.floats(0, 1))))
    def test_turns(self, looks: list[tuple[str, float]]) -> None:
        """One whose loop turns at least every ninth second and each 19 s of processor time lives."""
        detector, cpu, since, ran = HangDetector(), 0.0, 0, 0.0
        for state, used in looks:
            cpu, since, ran = cpu + used, since + 1, ran + used
            has_turned = since > 9 or ran > 19
            if has_turned:
                since, ran = 0, 0.0
            detector.observe(ProcessActivity(state, cpu), has_turned=has_turned)
            self.assertEqual(detector.why(), "")

    def test_suspect(self) -> None:
        """It is reported after three seconds; one that works is found waiting once at most between two beats."""
        detector = HangDetector()
        found = []
        for _ in range(4):
            detector.observe(ProcessActivity(_SLEEPS, 0.0), has_turned=False)
            found.append(detector.is_suspect)
        self.assertEqual(found, [False, False, False, True])
        detector.observe(ProcessActivity(_SLEEPS, 0.0), has_turned=True)
        self.assertFalse(detector.is_suspect)


class ActivityTest(SynchronousTestCase):
    def process(self, program: str) -> int:
        self.child = child = self.waiting(program)
        assert child.stdout is not None
        child.stdout.readline()
        return child.pid

    def seen(self, pid: int) -> ProcessActivity:
        found = activity_of(pid)
        assert found is not None
        return found

    def becomes(self, pid: int, is_so: Callable[[ProcessActivity], object]) -> None:
        eventually(lambda: bool(is_so(self.seen(pid))), "it is seen")

    def test_sleeps_and_ends(self) -> None:
        pid = self.process("import time; print(1, flush=True); time.sleep(1000)")
        self.becomes(pid, lambda activity: activity.state == _SLEEPS and activity.waits)
        os.kill(pid, signal.SIGSTOP)
        self.becomes(pid, lambda activity: activity.state == _HALTED and activity.waits)
        before = self.seen(pid)
        self.assertEqual(self.seen(pid), before)
        os.kill(pid, signal.SIGKILL)
        self.becomes(pid, lambda activity: activity.has_ended and not activity.waits)
        self.child.wait()
        self.assertTrue(self.seen(pid).has_ended)

    def test_runs(self) -> None:
        pid = self.process("print(1, flush=True)\nwhile True: pass")
        before = self.seen(pid)
        self.becomes(pid, lambda activity: activity.cpu >= before.cpu + 0.05)
        self.assertFalse(self.seen(pid).waits)
        # A system that does not show it.
        change_constants(self, liveness, _PROC="/nowhere/at/all")
        self.assertIsNone(activity_of(os.getpid()))
        self.assertIsNone(activity_of_family(os.getpid()))

    def test_other_threads_do_not_count(self) -> None:
        """Its loop is in the main thread: that hangs while another one works."""
        program = (
            "import threading, time\n"
            "def work():\n    while True: sum(range(1000))\n"
            "threading.Thread(target=work, daemon=True).start()\n"
            "print(1, flush=True)\n"
            "threading.Lock().acquire() and time.sleep(1000)"
        )
        pid = self.process(program)
        self.becomes(pid, lambda activity: activity.state == _SLEEPS)
        before = self.seen(pid)
        clock = (~pid << 3) | 2  # of all its threads (clock_getcpuclockid(3))
        until = time.clock_gettime(clock) + 0.2
        eventually(lambda: time.clock_gettime(clock) > until, "the other thread works")
        self.assertLess(self.seen(pid).cpu - before.cpu, 0.1)
        both = activity_of_threads(pid)
        assert both is not None
        self.assertGreaterEqual(both.cpu, 0.2)
        eventually(lambda: (activity_of_threads(pid) or before).state == _READY, "that is seen")

    def waiting(self, program: str) -> subprocess.Popen[bytes]:
        """Run a program whose input has neither bytes nor an end."""
        reads, writes = os.pipe()
        self.addCleanup(os.close, writes)
        with os.fdopen(reads) as never:
            command = [sys.executable, "-c", program]
            child = subprocess.Popen(command, stdin=never, stdout=subprocess.PIPE)
        self.addCleanup(_end, child)
        return child

    def test_family(self) -> None:
        """A process waits for its child, which works, and ends: what that has used stays."""
        works = "until = os.times().user + 0.3\nwhile os.times().user < until: sum(range(1000))\n"
        program = f"import os\nif os.fork():\n    os.wait(); print(1, flush=True); input()\n{works}"
        child = self.waiting(program)

        def family() -> ProcessActivity:
            found = activity_of_family(child.pid)
            assert found is not None
            return found

        eventually(lambda: family().state == _READY, "the child works")
        assert child.stdout is not None
        child.stdout.readline()
        # Only now: while the child ends, it may be in neither of the files that are read one after the other.
        self.assertGreaterEqual(family().cpu, 0.3)
        self.assertLess(self.seen(child.pid).cpu, family().cpu)
        child.kill()
        child.wait()
        self.assertTrue(family().has_ended)

    def test_others_name(self) -> None:
        """A process may call itself as it likes."""
        program = "open('/proc/self/comm', 'w').write(') R 1 (x'); print(1, flush=True); input()"
        child = self.waiting(program)
        assert child.stdout is not None
        select.select([child.stdout], [], [])
        self.becomes(child.pid, lambda activity: activity.state == _SLEEPS)
