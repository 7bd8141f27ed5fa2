import json
import math
from collections.abc import Mapping

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.rates import Moment, Rates
from txmux.telemetry.counting.counter_groups import SERVER, ServerTotals


class RatesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rates = Rates(self.clock.seconds)

    def of(self, totals: dict[str, int]) -> Mapping[str, float]:
        rates = self.rates.until_now({"connections": 7, **totals})
        return {name: rate for name, rate in rates.items() if name != "connections"}

    def test_growth_per_second_since_the_oldest_of_three_samples(self) -> None:
        self.assertEqual(self.of({"a": 5}), {})
        for number in range(10):
            self.rates.record({"a": 100 * number})
            self.clock.advance(5)
        self.assertEqual(self.of({"a": 1000, "b": 15}), {"a": 20.0, "b": 1.0})
        self.rates.record({"a": 10})  # removed counters make no negative rate
        self.clock.advance(1)
        self.assertEqual(self.of({"a": 3}), {"a": 0.0})

    def test_server_over_15_seconds_and_its_answers_over_a_minute(self) -> None:
        def server(number: int) -> ServerTotals:
            # One connection per second, each answered after as many milliseconds as there were before.
            waited = 1000 * number * (number - 1) // 2
            counted = {"connected": number, "answered": number, "answer time": waited}
            return ServerTotals(("b", "s"), [counted.get(cell, 0) for cell in SERVER.names])

        self.assertEqual(self.rates.of_server(server(1)), (0.0, None))
        for number in range(0, 200, 5):
            totals = server(number)
            sample = totals.total, totals.answered, totals.answer_time
            self.rates.record_servers({("b", "s"): sample} if number else {})
            self.clock.advance(5)
        self.assertEqual(self.rates.of_server(server(200)), (1.0, (135 + 199) / 2))
        self.assertEqual(self.rates.of_server(server(100)), (0.0, None))
        other = attrs.evolve(server(30), labels=("b", "other"))
        self.assertEqual(self.rates.of_server(other), (2.0, 14.5))

    def test_no_rate_without_time(self) -> None:
        self.rates.record({"a": 1})
        self.assertEqual(self.of({"a": 2}), {})

    def test_history_of_ten_minutes(self) -> None:
        for number in range(500):
            self.rates.record({"connections": 10 * number, "bytes_in": 40 * number}, number)
            self.clock.advance(5)
        history = self.rates.history()
        self.assertEqual(len(history), 120)
        self.assertEqual(history[-1], Moment(5, 2.0, 499, 8.0))
        self.assertEqual(history[0].ago, 120 * 5)

    def test_history_in_another_process_without_invalid_samples(self) -> None:
        for number in range(200):
            self.rates.record({"connections": 10 * number, "bytes_in": 0}, number)
            self.clock.advance(5)
        told = json.loads(json.dumps(self.rates.as_json()))
        self.clock = Clock()
        other = Rates(self.clock.seconds)
        self.clock.advance(1)
        odd = {"ago": 2, "totals": {"x": math.inf}, "active": 0}
        other.restore([{"ago": 1}, {"ago": 2, "totals": 7, "active": 0}, odd, *told])
        self.assertEqual(other.history(), self.rates.history())
        self.assertEqual(other.until_now({"connections": 2000}), {"connections": 2.0})
        other.record({"connections": 2000, "bytes_in": 0}, 5)
        self.assertEqual(other.history()[-1], Moment(0, 2.0, 5, 0.0))
        self.assertEqual(len(other.history()), 120)
