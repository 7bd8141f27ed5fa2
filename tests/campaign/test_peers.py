from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.peers.part import attempt, defects, row, run
from campaign.peers.trial import Outcome
from tests.interop.children import PATIENCE

_SLOW = 2000.0
"""Milliseconds that good clients may wait on a machine that is busy with all else; less than for a peer that keeps a process."""


class PeersTest(SynchronousTestCase):
    def test_some_pairs(self) -> None:
        self.assertEqual(run(Budget(0, 89), seconds=3, most_p99=_SLOW).defects, [])

    def test_recovery(self) -> None:
        (outcome,) = attempt([("names", "wrong type")], seconds=10, recovery=PATIENCE)
        self.assertEqual(defects(outcome, 10, _SLOW), [])
        self.assertIn(outcome.lines, (1, 2, 3))
        self.assertIsNotNone(outcome.recovered)
        self.assertIn("| names | wrong type | ", row(outcome))

    def test_bars(self) -> None:
        found = defects(Outcome("x", "silent", growth=(1.0, 30.0), p99=(1.0, 200.0)))
        self.assertEqual(len(found), 3)
