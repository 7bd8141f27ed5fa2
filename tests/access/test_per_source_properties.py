"""Limits for each source of clients, compared with a simple model."""

from ipaddress import ip_address

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.access.test_per_source import SECOND, memory
from tests.support.changes import change_constants
from tests.support.examples import scaled
from txmux.access import per_source as module
from txmux.access.per_source import Permit, PerSource, SourceLimits, SourceTable, source_of


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


class ModelTest(SynchronousTestCase):
    def test_model(self) -> None:
        """Whatever happens, in whatever order, the limits hold and nobody is refused without need."""
        # A table as large as that of a service would be made, and looked over, again and again for four sources.
        change_constants(self, module, _MOST_SLOTS=1 << 8)
        case = Model.TestCase
        case.settings = settings(max_examples=scaled(60), stateful_step_count=40, deadline=None)
        case().runTest()
