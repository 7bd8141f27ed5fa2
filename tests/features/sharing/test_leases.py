"""Leases of tokens and shared counts, with a Redis that the test plays, and a clock that it moves."""

import math
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.sharing import leases as module
from txmux.features.sharing.leases import Leases, SharedCounts

_RATE, _BURST = 20, 40
_INTERVAL = 1_000_000_000 // _RATE  # nanoseconds


class _Rates:
    """Answers as the script does, after a while.

    Args:
        clock: Tells the time.
        delay: Seconds until an answer is there.
    """

    def __init__(self, clock: Clock, delay: float) -> None:
        self.is_up = True
        self.questions = 0
        self.seconds = clock.seconds
        self._clock = clock
        self._delay = delay
        self._full: dict[str, float] = {}

    def ask(
        self, key: str, arguments: tuple[Any, ...], answered: Callable[[int, float], None]
    ) -> bool:
        self.questions += 1
        _, interval, burst, want, spent = arguments
        now = self.seconds() * 1e6
        full = max(self._full.get(key, 0), now) + spent * interval
        granted = max(0, min(want, math.floor((now + burst * interval - full) / interval)))
        full += granted * interval
        self._full[key] = full
        wait = max(0, full + interval - burst * interval - now) / 1e6
        self._clock.callLater(self._delay, answered, granted, wait)
        return True


class _Machine:
    """Has a bucket of its own beside its leases, as `PerSource` has."""

    def __init__(self, rates: Any) -> None:
        self._leases = Leases(rates, "x")
        self._seconds = rates.seconds
        self._full = 0

    def come(self, source: int = 1) -> bool:
        now = int(self._seconds() * 1e9)
        full = max(self._full, now)
        if full + _INTERVAL > now + _INTERVAL * _BURST:
            return False
        used = (full - now) // _INTERVAL
        if not self._leases.take(source, used, _INTERVAL, _BURST):
            return False
        self._full = full + _INTERVAL
        return True


class LeasesTests(SynchronousTestCase):
    def begin(self, count: int, delay: float = 0.001) -> None:
        self.clock = Clock()
        self.clock.advance(1)
        self.rates = _Rates(self.clock, delay)
        self.machines = [_Machine(self.rates) for _ in range(count)]

    def come(self, per_second: float, seconds: float) -> int:
        count = 0
        for number in range(int(per_second * seconds)):
            self.clock.advance(1 / per_second)
            count += self.machines[number % len(self.machines)].come()
        return count

    @given(st.integers(1, 6), st.floats(12, 100), st.floats(0.0001, 0.019))
    def test_machines_admit_the_rate_in_sum(self, machines: int, each: float, delay: float) -> None:
        self.begin(machines, delay)
        assume(machines * each > 1.2 * _RATE)
        self.come(machines * each, 12)
        let_in = self.come(machines * each, 20)
        self.assertTrue(18 * 20 <= let_in <= 22 * 20, let_in)

    @given(st.integers(1, 6), st.floats(1, 15))
    def test_client_below_the_rate_is_always_let_in(self, machines: int, per_second: float) -> None:
        self.begin(machines)
        self.assertEqual(self.come(per_second, 60), int(per_second * 60))

    def test_client_below_half_the_burst_costs_no_request(self) -> None:
        self.begin(1)
        self.come(9, 60)
        self.assertEqual(self.rates.questions, 0)

    def test_what_is_spent_is_reported_once_and_in_full(self) -> None:
        """A request that could not be sent is made again; while one is under way none is, and what is spent meanwhile follows."""
        self.begin(1, delay=1.0)
        ask, is_sent, asked = self.rates.ask, [False, True, True], list[int]()

        def asking(key: str, arguments: Any, answered: Any) -> bool:
            asked.append(arguments[3])
            return is_sent.pop(0) and ask(key, arguments, answered)

        self.patch(self.rates, "ask", asking)
        leases = Leases(self.rates, "x")  # type: ignore[arg-type]
        for count in (1, 2, 2):
            leases.take(1, 20, _INTERVAL, _BURST)
            self.assertEqual(len(asked), count)
        for _ in range(30):
            leases.take(1, 20, _INTERVAL, _BURST)
        self.clock.advance(1)
        self.assertEqual((len(asked), asked[-1]), (3, 0))

    def test_tokens_are_leased_again_when_half_of_them_are_used(self) -> None:
        self.begin(1)
        leases = Leases(self.rates, "x")  # type: ignore[arg-type]
        for _ in range(200):
            self.clock.advance(0.002)
            self.assertTrue(leases.take(1, 600, 1_000_000, 1000))
        self.assertTrue(200 / 10 <= self.rates.questions <= 200 / 5, self.rates.questions)

    def test_sources_without_end_are_not_remembered(self) -> None:
        self.begin(1)
        self.patch(module, "_MOST_LEASES", 3)
        leases = Leases(self.rates, "x")  # type: ignore[arg-type]
        for source in range(9):
            self.assertTrue(leases.take(source, 20 * (source % 2), _INTERVAL, _BURST))
        self.assertEqual((len(leases._leases), len(leases._recent)), (3, 3))

    def test_machine_without_answers_limits_by_itself(self) -> None:
        self.begin(2)
        self.come(200, 10)
        self.rates.is_up = False
        self.come(200, 5)  # the bursts of both
        let_in = self.come(200, 10)
        self.assertTrue(2 * 18 * 10 <= let_in <= 2 * 22 * 10, let_in)


class _CountRates:
    def __init__(self, clock: Clock) -> None:
        self.is_up = True
        self.seconds = clock.seconds
        self.later = clock.callLater
        self.told: list[tuple[Any, ...]] = []
        self.others = 0
        self.answers = self.can_ask = True

    def ask(
        self, key: str, arguments: tuple[Any, ...], answered: Callable[[int, float], None]
    ) -> bool:
        self.told.append(arguments[1:])
        if self.answers and self.can_ask:
            answered(self.others, 0)
        return self.can_ask


class _Counted:
    def __init__(self) -> None:
        self.here = 0

    def count(self, source: int) -> int:
        return self.here


class HeldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        make: Any = _CountRates
        self.rates = make(self.clock)
        self.counted = _Counted()
        self.held = SharedCounts(self.rates, "x")

    def at_other_machines(self) -> int:
        return self.held.at_other_machines(1, self.counted.here, 10, "m", self.counted.count)

    def test_source_below_half_its_limit_is_not_reported(self) -> None:
        self.rates.others = 9
        self.counted.here = 3
        self.assertEqual(self.at_other_machines(), 0)
        self.assertEqual(self.rates.told, [])

    def test_busy_source_is_reported_each_second_until_it_is_gone(self) -> None:
        self.rates.others = 3
        self.counted.here = 4
        self.at_other_machines()
        self.assertEqual(self.at_other_machines(), 3)
        self.counted.here = 8
        self.clock.advance(1)
        self.counted.here = 0
        self.clock.advance(1)
        self.assertEqual([one[:2] for one in self.rates.told], [("m", 5), ("m", 8), ("m", 0)])
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_count_of_others_is_good_for_fifteen_seconds(self) -> None:
        self.rates.others = 3
        self.counted.here = 4
        self.at_other_machines()
        self.rates.answers = False
        self.clock.pump([1] * 14)
        self.assertEqual(len(self.rates.told), 2)  # which is not repeated before its answer
        self.assertEqual(self.at_other_machines(), 3)
        self.clock.advance(1)
        self.assertEqual(self.at_other_machines(), 0)

    def test_report_that_cannot_be_sent_is_made_again(self) -> None:
        self.counted.here = 4
        self.rates.can_ask = False
        self.at_other_machines()
        self.rates.can_ask = True
        self.clock.advance(1)
        self.assertEqual([one[:2] for one in self.rates.told], [("m", 5), ("m", 4)])

    def test_without_redis_others_have_none(self) -> None:
        self.rates.others = 9
        self.counted.here = 9
        self.at_other_machines()
        self.rates.is_up = False
        self.held.forget()
        self.assertEqual(self.at_other_machines(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
