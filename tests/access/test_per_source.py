from ipaddress import ip_address
from unittest.mock import Mock

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from tests.support.examples import scaled
from txmux.access import per_source as module
from txmux.access.per_source import Permit, PerSource, SourceLimits, SourceTable, source_of
from txmux.rules.model import Listener, Rate
from txmux.transport import source_of_host

SECOND = 10**9


def memory(columns: int = 1) -> bytearray:
    return bytearray(SourceTable.size(columns))


class PerSourceTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def limited(self, limits: SourceLimits) -> PerSource:
        return PerSource(limits, self.clock.seconds)

    def entered(self, per_source: PerSource, source: int = 1) -> Permit:
        permit = per_source.enter(source)
        assert permit is not None
        return permit

    def test_no_connection_of_a_burst_is_lost_by_rounding(self) -> None:
        self.clock.advance(1795163804.087)
        limits = SourceLimits.for_listener(Listener("x", connection_rate_per_source=Rate(3.0, 30)))
        assert limits is not None
        per_source = self.limited(limits)
        for _ in range(30):
            self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_clock_set_back_costs_no_more_than_what_a_source_may_owe(self) -> None:
        self.clock.advance(10_000_000)
        per_source = self.limited(SourceLimits(interval=SECOND, burst=2))
        self.entered(per_source)
        self.clock.rightNow = 0.0
        self.assertIsNone(per_source.enter(1))
        self.clock.advance(15)
        self.assertIsNone(per_source.enter(1))
        self.clock.advance(1)
        self.entered(per_source)
        self.assertIsNone(per_source.enter(1))

    def test_connections_made_at_other_machines_and_source_zero_are_counted(self) -> None:
        per_source = self.limited(SourceLimits(interval=SECOND, burst=3))
        per_source.apply({1: (None, 0, 2)})
        self.entered(per_source)
        self.assertIsNone(per_source.enter(1))
        per_source.apply({1: (None, 0, 99)})
        for seconds in (15, 1):
            self.assertIsNone(per_source.enter(1))
            self.clock.advance(seconds)
        self.entered(per_source)
        per_source = self.limited(SourceLimits(connections=1))
        for source in (5, 0, 6):
            self.entered(per_source, source)
        self.assertEqual(per_source.tracked(), 3)
        per_source.apply({7: (None, 1, 0)})
        self.assertIsNone(per_source.enter(7))
        per_source.forget_elsewhere()
        self.entered(per_source, 7)
        for source in (5, 0, 6):
            self.assertIsNone(per_source.enter(source))

    def test_connections_on_their_way_count_until_they_are_forgotten(self) -> None:
        table, limits = SourceTable(memory(3), 3), SourceLimits(connections=2)
        one, other = (PerSource(limits, lambda: 0.0, table, n, moving=2) for n in (0, 1))
        for _ in range(2):
            one.move_away(self.entered(one))
        self.assertIsNone(other.enter(1))
        adopted = other.adopt(1, has_moved=True)
        table.clear(2)
        self.assertEqual(self.count(table), 1)
        self.entered(one)
        self.assertIsNone(other.enter(1))
        adopted.release()
        self.assertEqual(self.count(table), 1)

    def count(self, table: SourceTable) -> int:
        slot = table.find(1, 0)
        assert slot is not None
        return table.total(slot) & 0xFFFFFFFF

    def test_used_tokens_are_used_in_another_table(self) -> None:
        """Of each the emptier bucket counts."""
        limits = SourceLimits(interval=SECOND, burst=3)
        before, after = self.limited(limits), self.limited(limits)
        for source, times in ((1, 3), (2, 1)):
            for _ in range(times):
                self.entered(before, source)
        for _ in range(2):
            self.entered(after, 2)
        after.restore(before.buckets() + b"cut")
        self.assertIsNone(after.enter(1))
        self.entered(after, 2)
        self.assertIsNone(after.enter(2))
        self.clock.advance(1)
        self.entered(after, 1)
        self.assertIsNone(after.enter(1))
        after.source_table.refill()
        for _ in range(3):
            self.entered(after, 1)

    def test_memory_that_another_process_has_overwritten(self) -> None:
        """A compromised worker makes the counts wrong, but breaks no connection of the others, and no upgrade."""
        for byte in (b"\0", b"\xff"):
            shared = memory(2)
            table = SourceTable(shared, 2)
            per_source = PerSource(SourceLimits(connections=9), lambda: 0.0, table, 1)
            first, second = self.entered(per_source), self.entered(per_source)
            shared[:] = byte * len(shared)
            first.mark_decided()
            first.release()
            second.release()
            per_source.enter(1)
            SourceTable(memory(2), 2).drain_buckets(table.buckets(0), 1)

    def test_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits(self) -> None:
        for one, other, is_same in (
            ("192.0.2.1", "192.0.2.2", False),
            ("192.0.2.1", "::ffff:192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
            ("2001:db8:0:1::1", "2001:db8::1", False),
            ("0.0.0.1", "::1", False),  # no IPv4 source is one of IPv6
            ("192.0.2.1", "0:0:c000:201::", False),
            # One IPv4 address has 65,536 networks of 6to4, and Teredo's networks are those of its servers.
            ("2002:c000:201:1::1", "2002:c000:201:2::1", True),
            ("2002:c000:201::1", "192.0.2.1", True),
            ("2001:0:c633:6401:8000:1:3fff:fdfe", "2001:0:c633:6402:0:2:3fff:fdfe", True),
            ("2001:0:c633:6401:8000:1:3fff:fdfe", "192.0.2.1", True),
            ("2001:0:c633:6401:8000:1:3fff:fdfe", "2001:0:c633:6401:8000:1:3fff:fdfd", False),
            ("64:ff9b::192.0.2.1", "192.0.2.1", True),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False),
        ):
            found = source_of(ip_address(one)) == source_of(ip_address(other))
            self.assertEqual(found, is_same, (one, other))
            self.assertEqual(source_of_host(one) == source_of_host(other), is_same)
        ipv4, network = "192.0.2.7", "2001:db8:1:2::/64"
        texts = {ipv4: ipv4, f"::ffff:{ipv4}": ipv4, "2001:db8:1:2:3::4": network, "::1": "::/64"}
        for address, text in texts.items():
            self.assertEqual(module.text_of_source(source_of(ip_address(address))), text)
        self.assertEqual(module.text_of_source(-1), "unix")

    def test_listeners_have_limits_and_handshakes_turns(self) -> None:
        for keys, limits in (
            ({"max_connections": 5}, None),
            ({"connection_rate_per_source": Rate(20.0, 40)},
             SourceLimits(interval=SECOND // 20, burst=40)),
            ({"max_connections_per_source": 3}, SourceLimits(connections=3)),
            ({"max_undecided_per_source": 3}, SourceLimits(undecided=3)),
        ):  # fmt: skip
            self.assertEqual(SourceLimits.for_listener(Listener("x", **keys)), limits)
            if limits is not None:
                self.assertEqual(PerSource(limits, float).is_shareable, not limits.undecided)
        handshakes, key = module.Handshakes(float), ("x", 1)
        first, second, third = (Mock() for _ in range(3))
        for one in (first, second, third):
            handshakes.enter(key, one, 1)
        handshakes.leave(key, second)
        third.has_turn.assert_not_called()
        for one in (first, third, third):
            handshakes.leave(key, one)
        third.has_turn.assert_called_once_with()
        self.assertEqual(handshakes.sources, {})
        self.assertEqual(handshakes.enter(key, first, 0), 0.0)  # without a limit

    def test_memory_is_bounded_and_a_shared_table_finds_the_same_slots(self) -> None:
        for columns in (1, 2, 64, 1000):
            self.assertLessEqual(SourceTable.size(columns), 2**26 + 8)
        self.assertEqual((SourceTable.slots(1), SourceTable.slots(10**7)), (2**17, 16))
        shared = memory()
        tables = [SourceTable(shared), SourceTable(shared), SourceTable(memory())]
        found = [[table.find(source, 0) for source in range(1, 50)] for table in tables]
        self.assertEqual(found[0], found[1])
        self.assertNotEqual(found[0], found[2])
        self.assertEqual([table.numbers[-1] % 2 for table in tables], [1, 1, 1])
        before: list[int] = []
        for _ in range(2):
            tables[0].more(1, before)
        self.assertEqual(len(before), SourceTable.slots(1))

    def test_all_slots_are_looked_at_and_neighbours_do_not_crowd_each_other(self) -> None:
        table = SourceTable(memory())
        last = len(table.numbers) - 2  # before the factor
        table.numbers[last] = 1
        self.assertEqual(table.tracked(0), 1)
        table.clear(0)
        self.assertEqual((table.numbers[last], table.tracked(0)), (0, 0))
        per_source = PerSource(SourceLimits(connections=1), lambda: 0.0, table)
        first = source_of(ip_address("10.0.0.0"))
        count = 20_000
        self.assertNotIn(None, [per_source.enter(first + number) for number in range(count)])
        refused = sum(per_source.enter(first + number) is None for number in range(count))
        self.assertGreater(refused, count * 0.999)

    def test_model(self) -> None:
        """Whatever happens, in whatever order, the limits hold and nobody is refused without need."""
        # A table as large as that of a service would be made, and looked over, again and again for four sources.
        change_constants(self, module, _MOST_SLOTS=1 << 8)
        case = Model.TestCase
        case.settings = settings(max_examples=scaled(60), stateful_step_count=40, deadline=None)
        case().runTest()


class FullTableTest(SynchronousTestCase):
    def setUp(self) -> None:
        change_constants(self, module, _MOST_SLOTS=4, _WAYS=4)
        self.clock = Clock()

    def test_fullest_bucket_is_forgotten_first_and_slots_are_reused(self) -> None:
        per_source = PerSource(SourceLimits(interval=SECOND, burst=3), self.clock.seconds)
        assert per_source.enter(1) is not None
        for source, times in ((2, 3), (3, 1), (4, 2)):
            for _ in range(times):
                permit = per_source.enter(source)
                assert permit is not None
                permit.release()
        self.assertEqual(self.let_in(per_source, 5), 3)
        left = {source: self.let_in(per_source, source) for source in (1, 2, 4)}
        self.assertEqual(left, {1: 2, 2: 0, 4: 1})
        limits = SourceLimits(connections=1, interval=SECOND, burst=1)
        per_source = PerSource(limits, self.clock.seconds)
        for source in range(1000):
            self.clock.advance(0.3)
            permit = per_source.enter(source)
            assert permit is not None
            self.assertIsNone(per_source.enter(source))
            permit.release()

    def let_in(self, per_source: PerSource, source: int) -> int:
        """Count how many connections of a source are let in now; all go again."""
        count = 0
        while (permit := per_source.enter(source)) is not None:
            permit.release()
            count += 1
        return count

    def test_new_source_in_a_full_table_is_let_in_uncounted(self) -> None:
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


@attrs.define
class Known:
    """What the model knows of a source: its connections by process, and a bucket that is filled drop by drop."""

    tokens: int
    open: list[tuple[int, Permit]] = attrs.Factory(list)
    undecided: list[Permit] = attrs.Factory(list)


class Model(RuleBasedStateMachine):
    """Two processes that share a table, compared with a model that is as simple as can be."""

    sources = st.sampled_from([source_of(ip_address(f"192.0.2.{number}")) for number in range(4)])
    processes = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.limits = SourceLimits(connections=4, undecided=2, interval=SECOND // 2, burst=5)
        self.table = SourceTable(memory(2), 2)
        self.workers = self.make_workers()
        self.known: dict[int, Known] = {}

    def make_workers(self) -> list[PerSource]:
        return [PerSource(self.limits, self.clock.seconds, self.table, column) for column in (0, 1)]

    @rule(source=sources, process=processes)
    def enter(self, source: int, process: int) -> None:
        limits = self.limits
        known = self.known.setdefault(source, Known(limits.interval * limits.burst))
        welcome = (
            len(known.open) < limits.connections
            and len(known.undecided) < limits.undecided
            and known.tokens >= limits.interval
        )
        permit = self.workers[process].enter(source)
        assert (permit is not None) == welcome
        if permit is not None:
            known.tokens -= limits.interval
            known.open.append((process, permit))
            known.undecided.append(permit)

    @rule(source=sources, which=st.integers(0, 3))
    def mark_decided(self, source: int, which: int) -> None:
        known = self.known.get(source)
        if known is not None and which < len(known.open):
            _, permit = known.open[which]
            permit.mark_decided()
            if permit in known.undecided:
                known.undecided.remove(permit)

    @rule(source=sources, which=st.integers(0, 3))
    def leave(self, source: int, which: int) -> None:
        known = self.known.get(source)
        if known is not None and which < len(known.open):
            _, permit = known.open.pop(which)
            permit.release()
            if permit in known.undecided:
                known.undecided.remove(permit)

    @rule(steps=st.integers(1, 2000))
    def wait(self, steps: int) -> None:
        """Time goes by, in steps that a float holds exactly."""
        self.clock.advance(steps / 512)
        for known in self.known.values():
            most = self.limits.interval * self.limits.burst
            known.tokens = min(most, known.tokens + steps * SECOND // 512)

    def has_connections(self) -> bool:
        return any(known.open for known in self.known.values())

    # Of a lambda, older versions of hypothesis read the source each time, which takes long.
    @precondition(has_connections)
    @rule(process=processes)
    def crash(self, process: int) -> None:
        """A process ends without a word, its connections with it, and another takes its place."""
        self.table.clear(process)
        self.workers = self.make_workers()
        for known in self.known.values():
            gone = [permit for owner, permit in known.open if owner == process]
            known.open = [entry for entry in known.open if entry[1] not in gone]
            known.undecided = [permit for permit in known.undecided if permit not in gone]

    @invariant()
    def counts(self) -> None:
        now = int(self.clock.seconds() * SECOND)
        for source, known in self.known.items():
            slot = self.table.find(source, now)
            assert slot is not None
            total = self.table.total(slot)
            assert (total % 2**32, total >> 32) == (len(known.open), len(known.undecided))
