from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.deaths.moments import KILLED, MATRIX, UPGRADE, Strike, moments
from campaign.deaths.part import attempt, run


class DeathsTest(SynchronousTestCase):
    def test_any_moment(self) -> None:
        self.assertEqual(run(Budget(0, 1), streams=20, hangs=2).defects, [])

    def test_supervisors_killed(self) -> None:
        """Of an upgrade's supervisors one dies when the other could serve: no stream of any worker is lost."""
        for victim in ("old supervisor", "new supervisor"):
            strike = Strike(UPGRADE, victim, KILLED, MATRIX[UPGRADE]["before the commit"])
            outcome = attempt(strike, 20, hangs=2)
            self.assertTrue(outcome.has_come)
            self.assertEqual((outcome.lost, outcome.defects), (0, []), outcome.log)

    def test_moments(self) -> None:
        """They are those of the table of messages."""
        for named in MATRIX.values():
            for moment in named.values():
                self.assertIn((moment.kind, moment.act), moments())
