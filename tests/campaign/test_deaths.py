from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.deaths.moments import FEWER, HALTED, KILLED, MATRIX, RELOAD, UPGRADE, Strike, moments
from campaign.deaths.part import attempt, run


class DeathsTest(SynchronousTestCase):
    def test_any_moment(self) -> None:
        self.assertEqual(run(Budget(0, 1), streams=20, hangs=2).defects, [])

    def test_supervisors_killed(self) -> None:
        """Of an upgrade's supervisors one dies when the other could serve: no stream of any worker is lost."""
        moments = (MATRIX[UPGRADE][name] for name in ("before the commit", "at it"))
        for moment, victim in product(moments, ("old supervisor", "new supervisor")):
            strike = Strike(UPGRADE, victim, KILLED, moment)
            outcome = attempt(strike, 20, hangs=2)
            self.assertTrue(outcome.has_come)
            self.assertEqual((outcome.lost, outcome.defects), (0, []), outcome.log)

    def test_workers_struck(self) -> None:
        """Who dies or hangs while connections move, or in a reload, loses its own; those that it did not have go on where they were, or in others."""
        for change, victim, how, when in (
            (UPGRADE, "old worker", KILLED, "after it"),
            (UPGRADE, "new worker", KILLED, "after it"),
            (UPGRADE, "new worker", HALTED, "after it"),
            (FEWER, "old worker", KILLED, "after it"),
            (RELOAD, "old worker", KILLED, "before the commit"),
            (RELOAD, "old worker", KILLED, "at it"),
        ):
            strike = Strike(change, victim, how, MATRIX[change][when])
            outcome = attempt(strike, 60, hangs=2)
            self.assertTrue(outcome.has_come, strike)
            self.assertEqual((outcome.lost, outcome.defects), (0, []), f"{strike}: {outcome.log}")
            self.assertIn(outcome.its, range(1, 60), f"{strike}: it had some of them")

    def test_moments(self) -> None:
        """They are those of the table of messages."""
        for named in MATRIX.values():
            for moment in named.values():
                self.assertIn((moment.kind, moment.act), moments())
