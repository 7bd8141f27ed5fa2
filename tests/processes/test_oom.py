"""Whom the kernel kills first when memory has run out."""

import os
import signal
import subprocess
import sys
from unittest import SkipTest

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_memory import Machine
from tests.support.changes import change_constants, change_environment
from tests.support.kit import PATIENCE, RULES, WorkersTestCase, customize, eventually
from tests.support.proc import (
    await_oom_scores,
    is_gone,
    named,
    oom_score_of,
    starter_of,
)
from txmux.processes import oom
from txmux.telemetry.attention import MEMORY_RAN_OUT

_RAISED = "import os; from pathlib import Path; Path('/proc/self/oom_score_adj').write_text('17'); os.execvp(*__import__('sys').argv[1:2], __import__('sys').argv[1:])"
"""Runs a command, which has another score than this process."""

_WAITS = """\
import os, sys, time
if "TXMUX_PREDECESSOR" in os.environ and "txmux" in str(sys.orig_argv):
    from pathlib import Path
    from txmux.processes import service
    once = service.MuxService.startService
    def start(self):
        while not Path(os.environ["MAY_START"]).exists():
            time.sleep(0.01)
        once(self)
    service.MuxService.startService = start
"""


@pytest.mark.by_turns(each=True)
class ScoresTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        if oom.own_score() is None:
            raise SkipTest("Linux only")

    def test_workers_before_the_supervisor(self) -> None:
        """Whatever the service was started with; also those that a new starter forks.

        The new process of an upgrade goes before the workers of the old one until it serves, and the same holds for the next one.
        """
        may_start = self.folder / "start"
        change_environment(self, MAY_START=str(may_start))
        customize(self, _WAITS)
        before = sys.executable, "-c", _RAISED
        running = self.upgrading(RULES, "workers = 2", before, program="run")
        await_oom_scores(running.pid, 17, 167, 317, 317)
        old, [first, _] = starter_of(running.pid), running.workers
        os.kill(old, signal.SIGKILL)
        eventually(
            lambda: is_gone(old) and bool(named(running.pid, "starter")), "there is another one"
        )
        os.kill(first, signal.SIGKILL)
        # A worker has the starter's name until it has one of its own.
        eventually(
            lambda: [len(running.workers), len(named(running.pid, "starter"))] == [1, 1],
            "the new starter has forked one",
        )
        await_oom_scores(running.pid, 17, 167, 317)
        for _ in range(2):
            old = running.pid
            running.ask()
            eventually(lambda p=old: bool(self.newcomers(p)), "there is a new process")  # type: ignore[misc]
            [newcomer] = self.newcomers(old)
            self.assertEqual(
                (oom_score_of(newcomer), oom_score_of(starter_of(newcomer))), (617, 167)
            )
            may_start.touch()
            running.switched()
            eventually(lambda o=old: is_gone(o), "the old process has ended")  # type: ignore[misc]
            may_start.unlink()
            await_oom_scores(running.pid, 17, 167, 317, 317)

    def newcomers(self, pid: int) -> list[int]:
        # Without a starter, it is a process that has its parent's name until it becomes another program.
        return [one for one in named(pid, "supervis") if named(one, "starter")]


@pytest.mark.by_turns(each=True)
class RefusedTest(SynchronousTestCase):
    def run_with(self, program: str) -> str:
        program = f"from pathlib import Path\nfrom txmux.processes import oom\n{program}"
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def test_score_that_is_not_there_or_too_high(self) -> None:
        # Where `/proc` has none, or cannot be written, all goes on.
        program = "oom._SCORE = Path('{}')\noom.go_first()\nprint([oom.score_of_supervisor()])\noom.go_last()"
        self.assertEqual(self.run_with(program.format("/proc/none")), "['']")
        self.assertEqual(self.run_with(program.format("/proc/version")), "['']")
        # No score is above 1000.
        program = "oom.set_score(900)\noom.go_first()\nprint(oom.own_score(), oom.score_of_supervisor())\noom.set_score(1200)\nprint(oom.own_score())\noom.go_last()\nprint(oom.own_score())"
        self.assertEqual(self.run_with(program).split(), ["1000", "900", "1000", "900"])


class KillsTest(SynchronousTestCase):
    """What explains that a process was killed."""

    def setUp(self) -> None:
        self.machine = Machine(self)
        self.clock = Clock()
        self.kills = oom.OomKills(self.machine.proc, self.clock.seconds)

    def count(self, count: int) -> None:
        self.machine.write(
            {"groups/system.slice/txmux.service/memory.events": f"oom 9\noom_kill {count}"}
        )

    def test_group(self) -> None:
        """What was killed before does not count, each kill explains one end, and none long after it."""
        self.machine.second()
        self.count(3)
        self.kills.look()
        self.assertEqual(self.kills.explain(), "")
        self.count(5)
        why = "memory had run out (the limit of the memory group is 64 MiB)"
        self.assertEqual([self.kills.explain() for _ in range(3)], [why, why, ""])
        self.assertIn(MEMORY_RAN_OUT, why)
        self.count(6)
        self.kills.look()
        self.clock.advance(5)
        self.assertEqual(self.kills.explain(), why)
        self.count(7)
        self.kills.look()
        self.clock.advance(5.1)
        self.assertEqual(self.kills.explain(), "")

    def test_first_version(self) -> None:
        self.machine.mount("cgroup", "rw,memory", "4:memory:/")
        self.machine.write({"groups/memory.oom_control": "under_oom 0\noom_kill 1"})
        self.kills.look()
        self.machine.write({"groups/memory.oom_control": "under_oom 0\noom_kill 2"})
        self.assertEqual(self.kills.explain(), "memory had run out (that of the machine)")

    def test_machine(self) -> None:
        """Without a group that counts, the machine's kills do; only who was killed (SIGKILL) may have been so for lack of memory."""
        change_constants(self, oom, KILLS=self.kills)
        self.machine.write({"proc/vmstat": "oom_kill 7"})
        self.kills.look()
        self.machine.write({"proc/vmstat": "pgfault 1\noom_kill 8"})
        self.assertEqual(
            [oom.how_killed(status) for status in (None, 256, signal.SIGTERM)],
            ["ended", "exited with status 1", "was killed by signal 15 (SIGTERM)"],
        )
        killed = "was killed by the kernel: memory had run out (that of the machine)"
        self.assertEqual(oom.how_killed(signal.SIGKILL), killed)
        self.assertEqual(oom.how_killed(signal.SIGKILL), "was killed by signal 9 (SIGKILL)")
        self.assertEqual(oom.OomKills(self.machine.folder / "none").explain(), "")
