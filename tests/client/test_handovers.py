"""Sockets of clients that no server takes are reported until one takes some, or nobody has come for a minute."""

from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import set_wall_clock
from txmux.client.handovers import Handovers


class HandoversTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.handovers = Handovers(lambda: self.now)
        set_wall_clock(self, 5e8)

    def test_ends_by_a_taken_one_or_after_a_minute(self) -> None:
        for is_taken in (True, False):
            self.setUp()
            for source in ("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"):
                are_many = source.endswith("3")
                self.handovers.failed("/x", f"no, {source}", source)
                ((*_, is_of_many, _),) = self.handovers.report()
                self.assertEqual(is_of_many, are_many)
                self.now += 59
            expected = ("/x", "no, 192.0.2.3", 4, 5e8, True, self.now - 59)
            self.assertEqual(self.handovers.report(), [expected])
            self.handovers.end("/y")
            self.assertEqual(
                self.handovers.report(), [expected, ("/y", "", 0, 0.0, False, self.now)]
            )
            if is_taken:
                self.handovers.end("/x")
            else:
                self.now += 1
            self.assertNotIn("/x", [row[0] for row in self.handovers.report() if row[2]])
            self.now += 60
            self.assertEqual(self.handovers.report(), [])
