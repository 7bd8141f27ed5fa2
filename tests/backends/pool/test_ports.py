"""Source ports that are all in use are logged twice: when it begins, and with the number when it ends."""

import time

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.pool.ports import LackingPorts


class LackingPortsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.ports = LackingPorts(lambda: self.now)
        self.patch(time, "time", lambda: 5e8)

    def test_ends_by_a_connection_in_calm_or_after_a_minute(self) -> None:
        ended = "backend web: there are ports towards s again; 3 connections had none"
        for is_by_connection in (True, False):
            with capturedLogs() as events:
                for _ in range(3):
                    self.ports.failed("web", "s", "in use")
                    self.ports.connected("web", "s")  # by chance, as one of many tries
                    self.now += 1
                self.assertEqual(self.ports.report(), [("web", "s", "in use", 3, 5e8)])
                self.now += 59 if not is_by_connection else 5
                if is_by_connection:
                    self.ports.connected("web", "other")
                    self.assertTrue(self.ports.lacks)
                    self.ports.connected("web", "s")
                self.assertEqual(self.ports.report(), [])
            self.assertFalse(self.ports.lacks)
            lines = [event["log_format"].format(**event) for event in events]
            self.assertEqual(lines, ["backend web: cannot connect to s: in use", ended])
