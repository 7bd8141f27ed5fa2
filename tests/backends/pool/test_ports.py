"""Source ports that are all in use are logged twice: when it begins, and with the number when it ends."""

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import set_wall_clock
from txmux.backends.pool.ports import PortShortage
from txmux.telemetry.attention import OF_FEW


class PortShortageTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.ports = PortShortage(lambda: self.now)
        set_wall_clock(self, 5e8)

    def test_ends_by_a_connection_in_calm_or_after_a_minute(self) -> None:
        over = "backend web: there are ports towards s again; 3 connections had none"
        for is_by_connection in (True, False):
            self.setUp()
            with capturedLogs() as events:
                for _ in range(3):
                    self.ports.failed("web", "s", "in use", "unix")
                    self.ports.connected("web", "s")  # by chance, as one of many tries
                    self.now += 1
                found = self.ports.report()
                self.assertEqual(found, [("web", "s", f"in use{OF_FEW}", 3, 5e8, self.now - 1)])
                self.now += 59 if not is_by_connection else 5
                if is_by_connection:
                    self.ports.connected("web", "other")
                    self.assertTrue(self.ports.failing)
                    self.ports.connected("web", "s")
                ended = [("web", "s", "", 0, 0.0, self.now)] if is_by_connection else []
                self.assertEqual(self.ports.report(), ended)
            self.assertFalse(self.ports.failing)
            lines = [event["log_format"].format(**event) for event in events]
            self.assertEqual(lines, ["backend web: cannot connect to s: in use", over])

    def test_whose_connections_have_them(self) -> None:
        """Few sources: of the clients that fail, or of those that have the ports, until it is over."""
        for number in range(40):
            self.ports.failed("web", "s", "in use", f"192.0.2.{number % 20}")
            self.assertEqual(self._is_of_few(), number < 9, number)
        self.ports.taken("other", OF_FEW)
        self.assertFalse(self._is_of_few())
        for few in (OF_FEW, ""):
            self.ports.taken("web", few)
            self.assertTrue(self._is_of_few())
        self.now += 60
        self.assertEqual(self.ports.report(), [])
        for number in range(20):
            self.ports.failed("web", "s", "in use", bytes(number))
        self.assertFalse(self._is_of_few())
        for _ in range(5):
            self.ports.failed("web", "s", "in use", bytes(1))
        self.assertTrue(self._is_of_few())

    def _is_of_few(self) -> bool:
        ((_, _, why, *_),) = self.ports.report()
        return why.endswith(OF_FEW)
