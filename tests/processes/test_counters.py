"""Limits that hold for several processes together."""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import Child
from txmux.processes import counters
from txmux.processes.counters import Counters, SharedTally

# Takes and gives back as fast as it can, with as many in its hands as it gets, and tells the most of all workers.
RACE = """
import sys
from txmux.processes.counters import Counters, SharedTally
descriptor, column = map(int, sys.argv[1:])
counters = Counters(descriptor, 1, 2)
tally = SharedTally(3, counters, 0, column)
most = refused = 0
print("racing", flush=True)
sys.stdin.read(1)
for _ in range(3000):
    taken = 0
    while tally.take():
        taken += 1
        most = max(most, sum(counters._numbers))
    refused += 1
    for _ in range(taken):
        tally.give_back()
print("most", most, "refused", refused)
"""


class SharedTallyTest(SynchronousTestCase):
    """Two workers, and a limit."""

    def setUp(self) -> None:
        """Make the table."""
        self.counters = Counters.make(2, 2)
        self.addCleanup(self.counters.close)

    def tally(self, column: int, row: int = 1, limit: int = 3) -> SharedTally:
        """Make the tally of a worker."""
        return SharedTally(limit, self.counters, row, column)

    def test_limit(self) -> None:
        """What one has taken is missing for the other."""
        one, other = self.tally(0), self.tally(1)
        self.assertEqual([one.take(), other.take(), one.take()], [True] * 3)
        self.assertEqual([one.take(), other.take()], [False] * 2)
        one.give_back()
        self.assertEqual([other.take(), one.take()], [True, False])
        self.assertEqual((one.count, other.count), (1, 2))

    def test_rows(self) -> None:
        """Another limit has nothing to do with it."""
        self.assertTrue(self.tally(0, row=0, limit=1).take())
        self.assertTrue(self.tally(0, row=1, limit=1).take())

    def test_worker_gone(self) -> None:
        """What was taken by a worker that is no more is free again."""
        gone, left = self.tally(0), self.tally(1)
        for _ in range(2):
            gone.take()
        left.take()
        self.counters.clear(0)
        self.assertEqual([left.take(), left.take(), left.take()], [True, True, False])

    def test_without_memfd(self) -> None:
        """Where the system has no files in memory, one without a name does."""
        self.patch(counters, "sys", type("Other", (), {"platform": "other"}))
        table = Counters.make(1, 1)
        self.addCleanup(table.close)
        self.assertTrue(SharedTally(1, table, 0, 0).take())

    def test_race(self) -> None:
        """However two processes compete, there are never more than the limit."""
        table = Counters.make(1, 2)
        self.addCleanup(table.close)
        os.set_inheritable(table.descriptor, True)  # noqa: FBT003 - the os module's signature
        racers = [self.start_racer(table.descriptor, column) for column in (0, 1)]
        for racer in racers:
            racer.wait_for("racing")
        for racer in racers:
            racer.say(b"go")
        for racer in racers:
            found = racer.wait_for(r"most (\d+) refused \d+")
            self.assertLessEqual(int(found[1]), 3)
            self.assertEqual(racer.wait(), 0)

    def start_racer(self, descriptor: int, column: int) -> Child:
        """Start one of the processes."""
        own = f"/proc/{os.getpid()}/fd/{descriptor}"
        program = f"import os, sys; sys.argv[1] = os.open({own!r}, os.O_RDWR)\n{RACE}"
        child = Child(sys.executable, "-c", program, "0", str(column), stdin=True)
        self.addCleanup(child.end)
        return child
