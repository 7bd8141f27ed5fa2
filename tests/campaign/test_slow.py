"""The part of the campaign with small machines, in short."""

import os
import sys
import time
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.report import Report
from campaign.slow import memory
from campaign.slow.changes import change
from campaign.slow.part import TRIALS, run
from campaign.slow.service import Failure
from campaign.slow.trial import Trial
from campaign.slow.turns import TurnClock
from campaign.slow.watch import Item, Watch
from tests.interop.children import Child
from tests.support.folders import make_folder
from tests.support.memory_group import MemoryLimit
from tests.support.undone import Undone

_TURNS = """
import time

def compute():
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass

def run(reactor):
    reactor.callLater(0.3, compute)
    reactor.callLater(1, print, "done", flush=True)
    reactor.callLater(3, print, "again", flush=True)
    reactor.run()
"""


class SlowTests(SynchronousTestCase):
    def test_change(self) -> None:
        """A service that has all the time there is breaks nothing."""
        report = run(Budget(0, 1), [Trial("fast", partial(change, 0, 5))])
        self.assertEqual(report.defects, [], report.lines())
        self.assertEqual(report.figures["fast: streams, cut, hanging"], "60, 0, 0")

    def test_names(self) -> None:
        names = [trial.name for trial in TRIALS]
        self.assertEqual(len({*names}), len(names))

    def test_failure(self) -> None:
        """A trial that cannot go on is a defect, and the others go on."""

        def fail(_: Report, __: Undone) -> None:
            raise Failure("it has ended")

        report = run(Budget(0, 7), [Trial("one", fail), Trial("two", fail)])
        self.assertEqual(report.defects, ["seed 7, one: Failure: it has ended"])
        self.assertEqual(report.figures["not tried for lack of time"], "two")


class TurnClockTests(SynchronousTestCase):
    def test_longest_turn_is_named(self) -> None:
        """Of a reactor's turns the one with the most CPU time is told, with what it did."""
        clock = TurnClock(make_folder(self))
        self.addCleanup(clock.end)
        program = "from twisted.internet import reactor; import txmux_turns as t; t.run(reactor)"
        folder = make_folder(self)
        (folder / "txmux_turns.py").write_text(_TURNS)
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(folder)})
        child = Child(*clock.before, sys.executable, "-c", program)
        self.addCleanup(child.end)
        child.wait_for("done")
        [turn] = clock.longest().values()
        self.assertGreater(turn.cpu, 0.1)
        self.assertIn("compute txmux_turns.py:", turn.doing)
        self.assertIn(f"{turn.cpu * 1000:.0f} ms of CPU time", str(turn))
        clock.begin()
        [turn] = clock.longest().values()
        self.assertEqual((turn.cpu, turn.doing), (0.0, ""))
        child.wait_for("again")
        [turn] = clock.longest().values()
        self.assertLess(turn.cpu, 0.1)


class MemoryTests(SynchronousTestCase):
    def test_change(self) -> None:
        """In a memory group that has room for it nothing is lost, and an upgrade that has none is refused."""
        MemoryLimit(128).end()  # skips the test where there can be none
        report = run(Budget(0, 1), [Trial("small", partial(memory.change, 128, 2, 200))])
        self.assertEqual(report.defects, [], report.lines())
        self.assertEqual(report.figures["small: streams, cut, hanging"], "201, 0, 0")
        self.assertEqual(report.figures["small: killed by the kernel"], "0")
        self.assertEqual(report.figures["small: upgrade"], "there is no room for a new process")


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.watch = Watch(Path(make_folder(self)) / "admin.sock")
        self.addCleanup(self.watch.end)

    def show(self, *texts: str) -> None:
        self.watch.note([{"level": "warning", "what": "workers", "text": text} for text in texts])

    def test_false_item(self) -> None:
        """An item is false unless something was done that it tells of, also one that goes and comes again."""
        with self.watch.expecting("worker 1", after=0):
            self.show("worker 1 is away", "worker 2 is away")
        self.show("worker 2 is away")
        self.show("worker 1 is away")
        self.assertEqual(
            [item.text for item in self.watch.items if not item.expected],
            ["warning workers: worker 2 is away", "warning workers: worker 1 is away"],
        )
        self.assertEqual(len(self.watch.false_items()), 2)

    def test_duration(self) -> None:
        now = time.monotonic()
        self.watch.items.append(Item("x", now, now + 2, expected=False))
        self.assertEqual(self.watch.false_items(), ["'x' for 2.0 s"])
