import time
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.machines import memory, shortages
from campaign.machines.changes import change
from campaign.machines.part import TRIALS
from campaign.report import Report
from campaign.trial import Failure, Trial, try_all
from campaign.watch import Item, Watch
from tests.support.folders import make_folder
from tests.support.memory_group import MemoryLimit
from tests.support.undone import Undone


class MachinesTests(SynchronousTestCase):
    def test_change(self) -> None:
        """A service that has all the time there is breaks nothing."""
        report = try_all(Budget(0, 1), [Trial("fast", partial(change, 0, 5))])
        self.assertEqual(report.defects, [], report.lines())
        self.assertEqual(report.figures["fast: streams, cut, hanging"], "60, 0, 0")

    def test_shortages(self) -> None:
        """Where something runs short, clients wait or are refused, and are served afterwards."""
        for trial in shortages.TRIALS:
            self.assertEqual(trial.run().defects, [], trial.name)

    def test_names(self) -> None:
        names = [trial.name for trial in TRIALS]
        self.assertEqual(len({*names}), len(names))

    def test_failure(self) -> None:
        """A trial that cannot go on is a defect, and the others go on."""

        def fail(_: Report, __: Undone) -> None:
            raise Failure("it has ended")

        report = try_all(Budget(0, 7), [Trial("one", fail), Trial("two", fail)])
        self.assertEqual(len(report.defects), 1)
        self.assertRegex(report.defects[0], "^seed 7, (one|two): Failure: it has ended$")
        self.assertEqual(report.figures["trials"], "1 of 2")

    def test_change_in_little_memory(self) -> None:
        """In a memory group that has room for it nothing is lost, and an upgrade that has none is refused."""
        MemoryLimit(128).end()  # skips the test where there can be none
        report = try_all(Budget(0, 1), [Trial("small", partial(memory.change, 128, 2, 200))])
        self.assertEqual(report.defects, [], report.lines())
        self.assertEqual(report.figures["small: streams, cut, hanging"], "201, 0, 0")
        self.assertEqual(report.figures["small: killed by the kernel"], "0")
        self.assertEqual(report.figures["small: upgrade"], "there is no room for a new process")

    def show(self, *texts: str) -> None:
        self.watch.note([{"level": "warning", "what": "workers", "text": text} for text in texts])

    def test_false_item(self) -> None:
        """An item is false unless something was done that it tells of, also one that goes and comes again."""
        self.watch = Watch(Path(make_folder(self)) / "admin.sock")
        self.addCleanup(self.watch.end)
        with self.watch.expecting("worker 1", after=0):
            self.show("worker 1 is away", "worker 2 is away")
        self.show("worker 2 is away")
        self.show("worker 1 is away")
        false = [item.text for item in self.watch.items if not item.expected]
        self.assertEqual(false, [f"warning workers: worker {n} is away" for n in (2, 1)])
        self.assertEqual(len(self.watch.false_items()), 2)
        now = time.monotonic()
        self.watch.items.append(Item("x", now, now + 2, expected=False))
        self.assertEqual(self.watch.false_items()[2:], ["'x' for 2.0 s"])
