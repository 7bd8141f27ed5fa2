"""Limits for each source of clients."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.access.per_source_case import SECOND, memory
from txmux.access import per_source as module
from txmux.access.per_source import PerSource, SourceLimits, SourceTable, source_of
from txmux.rules.model import Listener, Rate

if TYPE_CHECKING:
    from txmux.access.per_source import Permit


class SourceOfTest(SynchronousTestCase):
    """Which addresses are one source."""

    def same(self, one: str, other: str) -> bool:
        """Tell whether two addresses are."""
        return source_of(ip_address(one)) == source_of(ip_address(other))

    def test_ipv4(self) -> None:
        """Each IPv4 address is one of its own."""
        self.assertFalse(self.same("192.0.2.1", "192.0.2.2"))

    def test_mapped(self) -> None:
        """An IPv4 address is the same whatever way it came."""
        self.assertTrue(self.same("192.0.2.1", "::ffff:192.0.2.1"))
        self.assertFalse(self.same("::ffff:192.0.2.1", "::ffff:192.0.2.2"))

    def test_ipv6(self) -> None:
        """What two IPv6 addresses of one network of 64 bits do is the doing of one."""
        self.assertTrue(self.same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"))
        self.assertFalse(self.same("2001:db8:0:1::1", "2001:db8::1"))

    def test_families(self) -> None:
        """No IPv4 address is the same source as an IPv6 address from which anybody may come."""
        self.assertFalse(self.same("0.0.0.1", "::1"))
        self.assertFalse(self.same("192.0.2.1", "0:0:c000:201::"))


class SourceLimitsTest(SynchronousTestCase):
    """What a listener's settings say."""

    def test_none(self) -> None:
        """Without limits there is nothing to be counted."""
        self.assertIsNone(SourceLimits.for_listener(Listener("x", max_connections=5)))

    def test_rate(self) -> None:
        """The rate becomes the time between two connections."""
        found = SourceLimits.for_listener(Listener("x", connection_rate_per_source=Rate(20.0, 40)))
        self.assertEqual(found, SourceLimits(0, 0, SECOND // 20, 40))

    def test_counts(self) -> None:
        """Each of the two counts is limited by itself."""
        for listener, limits in [
            (Listener("x", max_connections_per_source=3), SourceLimits(connections=3)),
            (Listener("x", max_undecided_per_source=3), SourceLimits(undecided=3)),
        ]:
            self.assertEqual(SourceLimits.for_listener(listener), limits)


class PerSourceTest(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        self.clock = Clock()

    def limited(self, limits: SourceLimits) -> PerSource:
        """Make what lets connections in."""
        return PerSource(limits, self.clock.seconds)

    def entered(self, per_source: PerSource, source: int = 1) -> Permit:
        """Let one in, which has to be possible."""
        permit = per_source.enter(source)
        assert permit is not None
        return permit

    def test_connections(self) -> None:
        """One more than the limit is refused, until one leaves; others are not concerned."""
        per_source = self.limited(SourceLimits(connections=2))
        first = self.entered(per_source)
        self.entered(per_source)
        self.assertIsNone(per_source.enter(1))
        self.entered(per_source, 2)
        first.release()
        self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_undecided(self) -> None:
        """Those that were recognised do not count any more."""
        per_source = self.limited(SourceLimits(undecided=1))
        first = self.entered(per_source)
        self.assertIsNone(per_source.enter(1))
        first.settle()
        second = self.entered(per_source)
        first.release()
        self.assertIsNone(per_source.enter(1))
        second.release()
        self.entered(per_source)

    def test_rate(self) -> None:
        """The burst is there at once, then as many as the time allows; a refused one costs nothing."""
        per_source = self.limited(SourceLimits(interval=SECOND // 4, burst=3))
        for _ in range(3):
            self.entered(per_source).release()
        for _ in range(4):
            for _ in range(5):
                self.assertIsNone(per_source.enter(1))
            self.clock.advance(0.25)
            self.entered(per_source).release()
        self.clock.advance(1000)
        for _ in range(3):
            self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_burst_that_is_no_sum(self) -> None:
        """No connection of a burst is lost by rounding."""
        self.clock.advance(1795163804.087)
        limits = SourceLimits.for_listener(Listener("x", connection_rate_per_source=Rate(3.0, 30)))
        assert limits is not None
        per_source = self.limited(limits)
        for _ in range(30):
            self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_clock_set_back(self) -> None:
        """If the clock is set back, nobody waits longer than with an empty bucket."""
        self.clock.advance(10_000_000)
        per_source = self.limited(SourceLimits(interval=SECOND, burst=2))
        self.entered(per_source)
        self.clock.rightNow = 0.0
        self.assertIsNone(per_source.enter(1))
        self.clock.advance(1)
        self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_zero(self) -> None:
        """The source whose number stands in slots that were never used is one like others."""
        per_source = self.limited(SourceLimits(connections=1))
        for source in (5, 0, 6):
            self.entered(per_source, source)
        self.assertEqual(per_source.tracked(), 3)
        for source in (5, 0, 6):
            self.assertIsNone(per_source.enter(source))


class FullTableTest(SynchronousTestCase):
    """More sources than there is room for."""

    def setUp(self) -> None:
        self.patch(module, "_MOST_SLOTS", 4)
        self.patch(module, "_WAYS", 4)
        self.clock = Clock()

    def test_forgets_the_best_behaved(self) -> None:
        """The bucket that is nearest to full is forgotten first, never one of a source with connections."""
        per_source = PerSource(SourceLimits(interval=SECOND, burst=3), self.clock.seconds)
        held = per_source.enter(1)
        assert held is not None
        for source, times in ((2, 3), (3, 1), (4, 2)):
            for _ in range(times):
                permit = per_source.enter(source)
                assert permit is not None
                permit.release()
        self.assertEqual(self.let_in(per_source, 5), 3)
        left = {source: self.let_in(per_source, source) for source in (1, 2, 4)}
        self.assertEqual(left, {1: 2, 2: 0, 4: 1})

    def let_in(self, per_source: PerSource, source: int) -> int:
        """Count how many connections of a source are let in now; all go again."""
        count = 0
        while (permit := per_source.enter(source)) is not None:
            permit.release()
            count += 1
        return count

    def test_no_room(self) -> None:
        """If all slots have connections, who is new comes in uncounted; when he is gone all is as before."""
        per_source = PerSource(SourceLimits(connections=1), self.clock.seconds)
        held = [per_source.enter(source) for source in range(4)]
        self.assertNotIn(None, held)
        uncounted = [per_source.enter(9) for _ in range(3)]
        self.assertNotIn(None, uncounted)
        for source in range(4):
            self.assertIsNone(per_source.enter(source))
        self.assertIsNotNone(held[2])
        for permit in (held[2], *uncounted):
            assert permit is not None
            permit.release()
        self.assertIsNotNone(per_source.enter(9))
        self.assertIsNone(per_source.enter(9))

    def test_reused(self) -> None:
        """Any number of sources may come one after the other, and each is new."""
        per_source = PerSource(
            SourceLimits(connections=1, interval=SECOND, burst=1), self.clock.seconds
        )
        for source in range(1000):
            self.clock.advance(0.3)
            permit = per_source.enter(source)
            assert permit is not None
            self.assertIsNone(per_source.enter(source))
            permit.release()


class SourceTableTest(SynchronousTestCase):
    """Its memory."""

    def test_size(self) -> None:
        """It is bounded, however many processes there are."""
        for columns in (1, 2, 64, 1000):
            self.assertLessEqual(SourceTable.size(columns), 2**26 + 8)
        self.assertEqual(SourceTable.slots(1), 2**17)
        self.assertEqual(SourceTable.slots(10**7), 16)

    def test_one_secret(self) -> None:
        """Those who share it find the same slots; others do not."""
        shared = memory()
        tables = [SourceTable(shared), SourceTable(shared), SourceTable(memory())]
        found = [[table.find(source, 0) for source in range(1, 50)] for table in tables]
        self.assertEqual(found[0], found[1])
        self.assertNotEqual(found[0], found[2])

    def test_spread(self) -> None:
        """Neighbours do not crowd each other: tens of thousands have slots at the same time."""
        table = SourceTable(memory())
        per_source = PerSource(SourceLimits(connections=1), lambda: 0.0, table)
        first = source_of(ip_address("10.0.0.0"))
        count = 20_000
        permits = [per_source.enter(first + number) for number in range(count)]
        self.assertNotIn(None, permits)
        refused = sum(per_source.enter(first + number) is None for number in range(count))
        self.assertGreater(refused, count * 0.999)
