from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.hostile.part import ATTACKS, run


class HostileTest(SynchronousTestCase):
    def test_attacks(self) -> None:
        """Meanwhile and afterwards the good client is served, and nothing is left of an attack."""
        report = run(Budget(5, 7))
        self.assertEqual(report.defects, [])
        told = "\n".join(report.lines())
        for attack in ATTACKS:
            self.assertIn(f"| {attack.name} |", told)
