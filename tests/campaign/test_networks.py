"""The part ``networks`` in short: one bad path, one pulled cable, one of the tests again."""

from __future__ import annotations

import os
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.campaign.networks import again, cables
from tests.campaign.networks.transfers import Transfers


class NetworksTests(SynchronousTestCase):
    """What `tests.campaign.networks` does for as long as it is given."""

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root makes network namespaces")

    def test_programs(self) -> None:
        """Real programs move their bytes over packets that are late, lost, doubled and out of order."""
        transfers = Transfers()
        programs = ("scp", "curl, TLS ended", "dig over UDP", "aioquic")
        transfers.run("all", relay="kernel", seed=1, size=2**16, programs=programs)
        self.assertEqual(transfers.defects, [])
        self.assertEqual(transfers.programs, len(programs))
        self.assertGreater(transfers.moved, 5 * 2**16)

    def test_cable(self) -> None:
        """When a client's cable is pulled, connections end as their settings say."""
        found, defects = cables.pulled("kernel", "client", ours=False)
        self.assertEqual(defects, [])
        self.assertEqual(found.keys(), cables.promises("client", ours=False).keys())

    def test_again(self) -> None:
        """Tests with real programs pass on a bad loopback interface, and one that fails is told."""
        test = "tests/interop/test_redis.py::RedisTests::test_big_value"
        outcomes = again.run_again([test], "tiny")
        self.assertEqual([(one.test, one.what) for one in outcomes], [(test, "passed")])
