"""The campaign of byte truth, in short."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.campaign.budget import Budget
from tests.campaign.bytes.beside import compare
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

    def test_beside(self) -> None:
        """Other proxies can be led the same connections, and none that comes through txmux is broken."""
        names = ("txmux, kernel", "txmux, portable", "nginx stream with proxy_half_close")
        outcomes = compare(1, 60, names)
        self.assertEqual([outcomes[name].connections for name in names], [60] * 3)
        self.assertEqual([outcomes[name].broken for name in names[:2]], [0, 0])
