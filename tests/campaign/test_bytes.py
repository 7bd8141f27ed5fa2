"""The campaign of byte truth, in short."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.campaign.budget import Budget
from tests.campaign.bytes.part import run, run_datagrams


class BytesTests(SynchronousTestCase):
    """Its machinery works."""

    def test_bytes(self) -> None:
        """Two hundred connections of all kinds break no promise."""
        report = run(Budget(1, 1), trials=200)
        self.assertEqual(report.defects, [])
        self.assertNotEqual(report.figures["bytes looked at"], "0")

    def test_datagrams(self) -> None:
        """Nor do datagrams."""
        report = run_datagrams(Budget(1, 1))
        self.assertEqual(report.defects, [])
