from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.features.page.routes import RouteTraffic


class TrafficTests(SynchronousTestCase):
    def test_rates_since_the_start_then_of_half_a_minute(self) -> None:
        """Looks within two seconds have the same rate, not none."""
        traffic = RouteTraffic(100.0)
        for time, count, rate in (
            (100.0, 5, 5.0), (110.0, 205, 20.0), (111.0, 215, 210 / 11), (140.0, 505, 10.0),
            (141.0, 1, 0.0),
        ):  # fmt: skip
            totals: Any = SimpleNamespace(route="r", listener="l", bytes_in=count - 1, bytes_out=1)
            looking = traffic.now(time, [totals])
            next(looking)
            with self.assertRaises(StopIteration) as ended:
                next(looking)
            self.assertEqual(ended.exception.value, {"r": {"l": rate}})
