"""Machines that share limits, each with a clock of its own, by a Redis that the test plays."""

import math
from itertools import chain
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from txmux.access import per_source as module
from txmux.access.per_source import Permit, PerSource, SourceLimits
from txmux.detection.ranked import finish
from txmux.features.sharing.exchange import OFTEN, ROW, SourceExchange

_SECOND = 10**9
_RATE, _BURST = 20, 40
_RATES = SourceLimits(interval=_SECOND // _RATE, burst=_BURST)
_PHASES = st.lists(st.floats(0, 0.99), min_size=1, max_size=6)
"""When in the time between two exchanges each machine has its own."""
_PACES = st.lists(st.sampled_from([1, 1.3, 2, 4, 16]), min_size=2, max_size=6)
"""How much longer than usual each machine takes from one exchange to the next."""


class _Machine:
    """Exchanges reports by a dictionary, as the script does with other machines."""

    def __init__(
        self, limits: SourceLimits, clock: Clock, reports: dict[bytes, bytes], ahead: float = 0.0
    ) -> None:
        self._now = lambda: clock.seconds() + ahead
        self.sources = PerSource(limits, self._now)
        self.exchange = SourceExchange()
        self.name = self.sources.table.encode()
        self.permits: list[Permit] = []
        self._reports = reports

    def turn(self) -> None:
        others = [(name, rows) for name, rows in self._reports.items() if name != self.name]
        self._reports[self.name] = finish(self.exchange.report(self.sources, self._now()))
        for _ in self.exchange.hear(self.sources, [*chain.from_iterable(others)]):
            pass

    def enter(self, source: int = 1) -> bool:
        if (permit := self.sources.enter(source)) is not None:
            permit.mark_decided()
            self.permits.append(permit)
        return permit is not None

    def come_often(self, times: int = _BURST) -> int:
        return sum(self.come() for _ in range(times))

    def come(self, source: int = 1) -> bool:
        if is_admitted := self.enter(source):
            self.permits.pop().release()
        return is_admitted


class ExchangeTests(SynchronousTestCase):
    def begin(self, count: int, limits: SourceLimits) -> None:
        change_constants(self, module, _MOST_SLOTS=64)  # which takes less time to look at
        self.clock, self.reports = Clock(), dict[bytes, bytes]()
        self.clock.advance(1)
        made = self.clock, self.reports
        self.machines = [_Machine(limits, *made, 1000.0 * number) for number in range(count)]

    def exchange(self, times: int = 2) -> None:
        for _ in range(times):
            self.clock.advance(OFTEN)
            for machine in self.machines:
                machine.turn()

    def come(self, per_second: float, seconds: float, phases: Any = None, paces: Any = None) -> int:
        """Have clients come by the machines in turn, each of which exchanges at its phase and its pace; count those that are let in."""
        machines, count = self.machines, 0
        due = [self.clock.seconds() + phase * OFTEN for phase in phases or [0.0] * len(machines)]
        for number in range(int(per_second * seconds)):
            self.clock.advance(1 / per_second)
            for at, machine in enumerate(machines):
                if due[at] <= self.clock.seconds():
                    due[at] += (paces[at] if paces else 1.0) * OFTEN
                    machine.turn()
            count += machines[number % len(machines)].come()
        return count

    @settings(max_examples=25)
    @given(_PHASES, st.floats(12, 60))
    def test_machines_admit_the_rate_in_sum(self, phases: list[float], each: float) -> None:
        assume(len(phases) * each > 1.2 * _RATE)
        self.begin(len(phases), _RATES)
        self.come(len(phases) * each, 20, phases)  # until the bursts of all are paid for
        let_in = self.come(len(phases) * each, 20, phases)
        self.assertTrue(18 * 20 <= let_in <= 22 * 20, let_in)

    @settings(max_examples=8)
    @given(_PACES, st.floats(12, 30))
    def test_so_they_do_if_some_exchange_seldom(self, paces: list[float], each: float) -> None:
        """None misses what another had made before that was quiet; in any time, each may be a burst ahead or behind."""
        assume(len(paces) * each > 1.2 * _RATE)
        self.begin(len(paces), _RATES)
        self.come(len(paces) * each, 40, paces=paces)
        let_in = self.come(len(paces) * each, 40, paces=paces)
        self.assertLessEqual(abs(let_in - _RATE * 40), 1.5 * _BURST * len(paces), let_in)

    @settings(max_examples=25)
    @given(_PHASES, st.floats(1, 19))
    def test_client_below_the_rate_is_always_let_in(self, phases: Any, each: float) -> None:
        self.begin(len(phases), _RATES)
        self.assertEqual(self.come(each, 30, phases), int(each * 30))

    @settings(max_examples=10)
    @given(_PHASES)
    def test_at_once_each_machine_admits_a_burst_and_the_rate_of_one(self, phases: Any) -> None:
        """That of one exchange."""
        self.begin(count := len(phases), _RATES)
        let_in = self.come(200 * count, 1, phases)
        of_exchanges = count * (_BURST + math.ceil(2 * OFTEN * _RATE) + 1)
        self.assertLessEqual(let_in, of_exchanges + _RATE)

    def test_all_counts_that_others_know(self) -> None:
        self.begin(6, SourceLimits(interval=10 * _SECOND, burst=3))
        let_in = 0
        for number in range(120):
            self.exchange(4)  # a second
            let_in += self.machines[number % 6].come()
        self.assertLessEqual(let_in, 3 + 120 // 10 + 1)
        # Also at machines at which it comes with less than half of the rate.
        self.begin(3, _RATES)
        let_in = 0
        for number in range(60 * 60):
            self.clock.advance(1 / 60)
            for machine, often in zip(self.machines, (5, 8, 8), strict=True):
                if not number % 15:
                    machine.turn()
                let_in += not number % often and machine.come()
        self.assertTrue(0.98 * 60 * 20 <= let_in <= 60 * 20 + 3 * _BURST, let_in)

    def test_busy_source_is_reported_for_eight_seconds_and_a_quiet_one_is_not(self) -> None:
        """So that a machine which exchanges every four seconds hears of all that it has made."""
        self.begin(1, _RATES)
        for _ in range(9):
            self.machines[0].come()
            self.exchange(1)
        self.assertEqual({*self.reports.values()}, {b""})
        self.begin(1, _RATES)
        (machine,) = self.machines
        machine.turn()
        machine.come_often()
        lasted = 0
        for _ in range(60):
            self.exchange(1)
            lasted += bool(self.reports[machine.name])
        self.assertEqual(lasted, 32)

    def test_what_was_made_before_the_first_report_is_charged_to_nobody(self) -> None:
        """Nor what a new process of an upgrade finds, which goes on with what the others know."""
        self.begin(2, _RATES)
        one, other = self.machines
        one.come_often()
        other.turn()
        self.exchange()
        self.assertEqual(other.come_often(50), _BURST)
        for renewed in (one, other):
            self.clock.advance(10)
            self.exchange()
            one.come_often()
            self.exchange(1)
            self.assertFalse(other.come())
            if renewed is other:
                self.clock.advance(_BURST / _RATE)
            renewed.exchange = SourceExchange()
            self.exchange()
            if renewed is one:
                self.clock.advance(2)  # the bucket is full again, unless it was charged twice
            self.assertEqual(other.come_often(50), _BURST)

    def test_lies_of_others_last_for_fifteen_seconds_and_a_burst(self) -> None:
        self.begin(1, _RATES)
        (machine,) = self.machines
        for count in (0, (1 << 32) - 1, 5):  # also one that has begun again
            self.reports[b"liar"] = ROW.pack(1, count, count, 0)
            machine.turn()
        self.assertFalse(machine.come())
        self.clock.advance(15 + _BURST / _RATE)
        self.assertTrue(machine.come())

    def test_busiest_of_very_many_sources_are_reported(self) -> None:
        self.begin(1, SourceLimits(interval=10 * _SECOND, burst=9))
        change_constants(self, module, _MOST_SLOTS=1 << 13)
        machine = _Machine(SourceLimits(interval=10 * _SECOND, burst=9), self.clock, self.reports)
        machine.turn()
        for source in range(2, 1502):
            for _ in range(1 + (source < 12)):
                machine.come(source)
        machine.turn()
        found = {source: new for source, _, new, _ in ROW.iter_unpack(self.reports[machine.name])}
        self.assertEqual(len(found), 1000)
        self.assertEqual({source for source in found if found[source] == 2}, {*range(2, 12)})
        # Others that are a little nearer to their limits do not take the places of those that are reported; one that is much nearer does.
        for source in [*range(2, 1502), *({*range(12, 1502)} - found.keys()), *[8888] * 5]:
            machine.come(source)
        machine.turn()
        again = {source for source, *_ in ROW.iter_unpack(self.reports[machine.name])}
        self.assertEqual((again - found.keys(), len(found.keys() - again)), ({8888}, 1))

    @settings(max_examples=50)
    @given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60))
    def test_from_half_of_the_limit_at_one_machine_on_all_count(
        self, count: int, steps: list[tuple[int, bool]]
    ) -> None:
        """There never are more than the limit then, and nobody is refused below it."""
        self.begin(count, SourceLimits(connections=10))
        for number, opens in steps:
            machine = self.machines[number % count]
            self.exchange(3)  # of one that has half, of the others that know of it then, and by all
            had = [len(one.permits) for one in self.machines]
            if opens and machine.enter():
                self.assertTrue(sum(had) < 10 or max(had) < 5, had)
            elif opens:
                self.assertGreaterEqual(sum(had), 10)
            elif machine.permits:
                machine.permits.pop().release()

    def test_machine_that_is_gone_is_forgotten(self) -> None:
        self.begin(2, SourceLimits(connections=10))
        one, other = self.machines
        for _ in range(10):
            one.enter()
        self.exchange()
        self.assertFalse(other.enter())
        self.machines.remove(one)
        del self.reports[one.name]  # as the script does
        self.exchange()
        self.assertEqual((sum(other.enter() for _ in range(12)), other.sources.tracked()), (10, 1))

    def test_memory_that_a_worker_has_overwritten(self) -> None:
        """What is reported is wrong then, but the process goes on."""
        for byte in (0, 0xFF):
            self.begin(1, SourceLimits(connections=3, interval=_SECOND, burst=2))
            (machine,) = self.machines
            machine.enter()
            self.exchange()
            memory = machine.sources.source_table.numbers.cast("B")
            memory[:] = bytes([byte]) * len(memory)
            self.reports[b"other"] = ROW.pack(1, 3, 3, 3)
            self.exchange(3)
