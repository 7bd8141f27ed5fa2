"""The short form of the campaign's part with bad servers and machines: a trouble of each kind."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.campaign.budget import Budget
from tests.campaign.machines import machine, part, processes, servers


class ShortTests(SynchronousTestCase):
    """What takes least of each kind."""

    def test_troubles(self) -> None:
        """Each passes."""
        for case, name in (
            (servers.ServerTrouble, "test_refuses"),
            (servers.ServerTrouble, "test_floods"),
            (machine.ShortageTrouble, "test_descriptors"),
            (machine.ShortageTrouble, "test_disk"),
            (processes.ProcessTrouble, "test_parent_killed"),
        ):
            result, test = part.attempt(case, name, Budget(0, 1).chance(0))
            self.assertEqual([text for _, text in (*result.failures, *result.errors)], [])
            self.assertGreaterEqual(test.slowest, 0)

    def test_defect(self) -> None:
        """A trouble that breaks something is told of, and does not end the campaign."""

        class Broken(servers.ServerTrouble):
            def test_it(self) -> None:
                self.fail("broken")

        result, _ = part.attempt(Broken, "test_it", random.Random(1))
        self.assertEqual(len(result.failures), 1)
