"""Tests of connections that machines count together, with a Redis that the test plays, and a clock that it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.shared.leases import SharedCounts

if TYPE_CHECKING:
    from collections.abc import Callable


class _Rates:
    """Keeps what it is told, and answers at once what others have."""

    def __init__(self, clock: Clock) -> None:
        self.is_up = True
        self.seconds = clock.seconds
        self.later = clock.callLater
        self.told: list[tuple[Any, ...]] = []
        self.others = 0
        self.answers = True

    def ask(
        self, key: str, arguments: tuple[Any, ...], answered: Callable[[int, float], None]
    ) -> bool:
        self.told.append(arguments[1:])
        if self.answers:
            answered(self.others, 0)
        return True


class _Counted:
    """Counts the connections of this machine."""

    def __init__(self) -> None:
        self.here = 0

    def count(self, source: int) -> int:
        return self.here


class HeldTests(SynchronousTestCase):
    """What a machine tells of a source, and what it knows."""

    def setUp(self) -> None:
        self.clock = Clock()
        make: Any = _Rates
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
        self.assertEqual(self.at_other_machines(), 3)
        self.clock.advance(1)
        self.assertEqual(self.at_other_machines(), 0)

    def test_without_redis_others_have_none(self) -> None:
        self.rates.others = 9
        self.counted.here = 9
        self.at_other_machines()
        self.rates.is_up = False
        self.held.forget()
        self.assertEqual(self.at_other_machines(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
