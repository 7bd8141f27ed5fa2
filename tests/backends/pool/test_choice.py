"""A choice among many servers: it is that of a look at each of them, and costs hardly more than among few."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from random import Random
from typing import Any, get_args
from weakref import WeakKeyDictionary

import attrs
import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import SPARE, Watched, servers
from tests.support.changes import change_constants
from tests.support.examples import scaled
from tests.support.held import held_by
from txmux.backends.pool import pool as pool_module
from txmux.backends.pool.balance import Choice, Tournament
from txmux.backends.pool.member import SUSPECT, Member, is_due
from txmux.backends.pool.pool import Availability, Unavailable
from txmux.backends.pool.server_health import BackendHealth, MemberState, ServerHealth
from txmux.rules.model import Balance, Check, Ejection, Refusal, Server
from txmux.testing import steps_in

KINDS: tuple[Balance, ...] = get_args(Balance)
_ADDRESSES = [f"10.0.0.{number}:80" for number in range(1, 8)]


class Model:
    """A choice by a look at each server: of the best group with room, the one that the balance says."""

    def __init__(self) -> None:
        self.credits: WeakKeyDictionary[ServerHealth, float] = WeakKeyDictionary()
        self.debt = 0.0  # of who is chosen
        self.starts = False  # whether one of the group starts slowly

    def eligible(self, watched: Watched, tried: Collection[Member]) -> Sequence[Member] | None:
        backend, now = watched.pool.backend, watched.clock.seconds()
        up, suspect = [], []
        for member in watched.pool.members:
            if member.state is MemberState.UP or is_due(member, now):
                up.append(member)
            elif member.state in SUSPECT:
                suspect.append(member)
        last_resort = suspect if isinstance(backend.fallback, Refusal) else []
        for those in (up, last_resort):
            untried = [member for member in those if member not in tried]
            ranks = sorted({member.rank for member in untried})
            for rank in ranks[:1] if backend.queue else ranks:
                room = [m for m in untried if m.rank == rank and m.has_room()]
                if room:
                    self.starts = any(m.weight < m.full_weight for m in those if m.rank == rank)
                    return room
            if ranks:
                return []
        return None

    def best(self, members: Sequence[Member], kind: Balance, client: str) -> Sequence[Member]:
        """Return those that may be chosen: one, unless chance decides or rounding may."""
        if kind == "random":
            return members
        if kind == "first":
            return members[:1]
        if kind.endswith("-hash") and client:
            found = Choice(members, kind, Random(1)).pick(client)
            assert found is not None
            return [found]
        if kind == "least-connections":
            loads = [(member.connections + self.starts) / member.weight for member in members]
            members = [m for m, load in zip(members, loads, strict=True) if load == min(loads)]
        for member in members:
            self.credits[member.health] = self.credits.get(member.health, 0) + member.weight
        most = max(self.credits[member.health] for member in members)
        near = 0 if all(member.weight % 1 == 0 for member in members) else 1e-6
        best = [member for member in members if self.credits[member.health] >= most - near]
        self.debt = sum(member.weight for member in members)
        return best if near else best[:1]

    def pay(self, member: Member) -> None:
        if self.debt:
            self.credits[member.health] -= self.debt
        self.debt = 0.0


_SERVERS = st.tuples(st.sampled_from([1, 1, 2, 3, 7]), st.sampled_from([0, 0, 1, 3]), st.booleans())
_CLIENTS = st.sampled_from(["", "10.0.0.1", "10.0.0.2"])
_TRIED = st.sets(st.integers(0, 6), max_size=2)
_ENDS = st.sampled_from(["released", "failed", "connected", "abandoned"])
_HELD = st.sampled_from([None, MemberState.DRAIN, MemberState.MAINTENANCE])


class ChoiceMachine(RuleBasedStateMachine):
    """Pools of older and newer rules, whose servers come, fail, start slowly, are full and go; the pools choose as the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.held: list[tuple[Watched, Member]] = []
        self.pools: list[Watched] = []
        self.clock = Clock()

    @initialize(
        kind=st.sampled_from(KINDS),
        queue=st.sampled_from([0, 9]),
        slow_start=st.sampled_from([0.0, 8.0]),
        fallback=st.sampled_from([Refusal.CLOSE, SPARE]),
        most=st.sampled_from([0, 4, 100]),
    )
    def begin(self, kind: Balance, queue: int, slow_start: float, fallback: Any, most: int) -> None:
        self.options = {
            "balance": kind, "queue": queue, "slow_start": slow_start, "fallback": fallback,
            "eject": Ejection(2, 5, 10), "check": Check("tcp", rise=1, fall=1),
            "max_connections": most,
        }  # fmt: skip
        self.kind, self.health = kind, BackendHealth()
        self.reload([(1, 0, False), (1, 0, False), (1, 2, False), (3, 0, True)])

    @rule(of=st.lists(_SERVERS, min_size=1, max_size=len(_ADDRESSES)))
    def reload(self, of: list[tuple[int, int, bool]]) -> None:
        those = [
            server
            for address, (weight, most, backup) in zip(_ADDRESSES, of, strict=False)
            for server in servers(address, weight=weight, max_connections=most, backup=backup)
        ]
        before = self.pools[-1] if self.pools else None
        new = Watched(*those, backend_health=self.health, clock=self.clock, **self.options)
        if before is not None:
            before.pool.retire()
            new.pool.commit()
        self.pools = [*self.pools[-1:], new]

    @rule(old=st.booleans(), client=_CLIENTS, tried=_TRIED)
    def pick(self, old: bool, client: str, tried: set[int]) -> None:  # noqa: FBT001
        watched = self.pools[0 if old else -1]
        pool = watched.pool
        if watched.clock.seconds() >= pool._arrange_at:
            pool.rearrange()
        assert pool.tiers is not None  # their weights are those of this choice
        avoided = [pool.members[number] for number in tried if number < len(pool.members)]
        eligible = self.model.eligible(watched, avoided)
        is_full = 0 < pool.backend.max_connections <= pool.connections
        may_be: Sequence[object] = [Unavailable.NO_SERVER if eligible is None else Unavailable.FULL]
        if eligible and not is_full:
            may_be = self.model.best(eligible, self.kind, client)
        found = pool.pick(client, avoided)
        assert any(found is one for one in may_be), (found, may_be)
        if isinstance(found, Member):
            self.model.pay(found)
            self.held.append((watched, found))

    @rule(number=st.integers(0, 99), how=_ENDS)
    def go_on(self, number: int, how: str) -> None:
        if self.held:
            watched, member = self.held[number % len(self.held)]
            getattr(watched.pool, how)(member)
            if how != "connected":
                self.held.remove((watched, member))

    @rule(number=st.integers(0, 6), ok=st.booleans())
    def check(self, number: int, ok: bool) -> None:  # noqa: FBT001
        pool = self.pools[-1].pool
        pool.check_result(pool.members[number % len(pool.members)], ok=ok, why="")

    @rule(address=st.sampled_from(_ADDRESSES), held=_HELD, weight=st.sampled_from([None, 1, 5]))
    def override(self, address: str, held: MemberState | None, weight: int | None) -> None:
        self.health.override({address: (held, weight)})

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def others_read_credit(self) -> None:
        self.health.settle()
        for watched in self.pools:
            for member in watched.pool.members:
                assert abs(member.health.credit - self.model.credits.get(member.health, 0)) < 1e-6

    @invariant()
    def counts_are_right(self) -> None:
        for watched in self.pools:
            states = [member.state for member in watched.pool.members]
            assert +watched.pool.states == Counter(states)
            up = states.count(MemberState.UP)
            expected = Availability.NONE if not up else Availability.SOME
            expected = Availability.ALL if up == len(states) else expected
            assert watched.pool.availability is expected

    @rule(connections=st.integers(1, 9), address=st.sampled_from(_ADDRESSES))
    def expect(self, connections: int, address: str) -> None:
        """Connections of another process are handed over."""
        known = {member.server.text for watched in self.pools for member in watched.pool.members}
        if address in known:
            self.health.expect({address: connections})


class ManyMachine(ChoiceMachine):
    """The same with pools that do not look at all servers at each change; they may still choose a backup server."""

    @rule(old=st.booleans(), client=_CLIENTS, tried=_TRIED)
    def pick(self, old: bool, client: str, tried: set[int]) -> None:  # noqa: FBT001
        watched = self.pools[0 if old else -1]
        pool, now = watched.pool, self.clock.seconds()
        avoided = [pool.members[number] for number in tried if number < len(pool.members)]
        eligible = self.model.eligible(watched, avoided)
        up = {m for m in pool.members if m.state is MemberState.UP or is_due(m, now)}
        is_full = 0 < pool.backend.max_connections <= pool.connections
        room = {member for member in pool.members if member.has_room()}.difference(avoided)
        found = pool.pick(client, avoided)
        if isinstance(found, Member):
            assert not is_full
            assert found in room & up.union(eligible or ())
            self.held.append((watched, found))
        else:
            assert is_full or not eligible
            assert found is (Unavailable.NO_SERVER if eligible is None else Unavailable.FULL)

    @rule()
    def others_read_credit(self) -> None:
        self.health.settle()


class ChoiceTests(SynchronousTestCase):
    def test_as_the_model(self) -> None:
        few = settings(max_examples=scaled(40), stateful_step_count=40, deadline=None)
        stateful.run_state_machine_as_test(ChoiceMachine, settings=few)
        change_constants(self, pool_module, _FEW=0, _PAUSE=2.0)
        stateful.run_state_machine_as_test(ManyMachine, settings=few)

    def test_loads_of_the_past_are_forgotten(self) -> None:
        """A server that once had 1,000 connections costs no memory for each number of them."""
        tournament = Tournament([1, 1], [0, 0], [0, 0])
        for load in range(1000):
            self.assertEqual([tournament.take_turn(), tournament.take_turn()], [0, 1])
            tournament.set_load(0, load + 1)
            tournament.set_load(1, load + 1)
        self.assertLess(held_by(tournament), 100)


_KINDS_BY_COST: tuple[Balance, ...] = KINDS[:4] + KINDS[-1:]  # those by a hash cost the same
_server = cache(partial(attrs.evolve, Server("", "tcp", "", 80)))


def pool_of(count: int, balance: Balance, **options: Callable[[int], object]) -> Watched:
    """Make a pool of so many servers; an option is called with the number of each."""
    addresses = (f"10.0.{number // 250}.{number % 250}" for number in range(count))
    each = ({name: value(n) for name, value in options.items()} for n in range(count))
    those = (
        _server(text=f"{host}:80", host=host, **more)
        for host, more in zip(addresses, each, strict=True)
    )
    return Watched(*those, balance=balance, slow_start=30.0)


def filled(watched: Watched) -> Watched:
    for member in watched.members:
        if member.server.max_connections:
            watched.pool.backend_health.adopt(member.health)
    return watched


def starting(watched: Watched) -> Watched:
    watched.clock.advance(100)
    for member in watched.members[::2]:
        member.health.came_at = 90.0
    watched.pool.rearrange()
    return watched


def ejected(watched: Watched) -> Watched:
    for member in watched.members[::2]:
        member.health.state, member.health.out_until = MemberState.EJECTED, 100.0
    watched.pool.rearrange()
    return watched


CONDITIONS: Mapping[str, Callable[[int, Balance], Watched]] = {
    "all up": pool_of,
    "half down": partial(pool_of, down=lambda number: number % 2 > 0),
    "half are backups": partial(pool_of, backup=lambda number: number % 2 > 0),
    "all weights differ": partial(pool_of, weight=lambda number: number + 1),
    "all full": lambda *of: filled(pool_of(*of, max_connections=lambda _: 1)),
    "half full": lambda *of: filled(pool_of(*of, max_connections=lambda number: number % 2)),
    "half start slowly": lambda *of: starting(pool_of(*of)),
    "half ejected": lambda *of: ejected(pool_of(*of)),
}


@pytest.mark.by_turns(each=True)
class CostTests(SynchronousTestCase):
    def steps(self, watched: Watched, tried: Sequence[Member]) -> int:
        def connect(count: int = 20) -> None:
            for number in range(count):
                member = watched.pool.pick(f"10.1.0.{number}", tried)
                if isinstance(member, Member):
                    watched.pool.connected(member)
                    watched.pool.released(member)

        connect(200)  # credit is spread, and the clients of a hash are known
        return steps_in(connect)

    def test_hardly_grows_with_the_servers(self) -> None:
        """From 10 to 1,000, a connection costs at most 2.1 times as many steps, since it takes 7 more levels of a tree."""
        for kind in _KINDS_BY_COST:
            for what, make in CONDITIONS.items():
                few, many = make(10, kind), make(1000, kind)
                for tried in (0, 1):
                    before, after = (self.steps(at, at.members[:tried]) for at in (few, many))
                    self.assertLess(after, 2.1 * before, (kind, what, tried))

    def _after_changes(self, count: int, kind: Balance) -> int:
        """Take all but one down, and up again, with a client after each change; return the most steps of both."""
        those = pool_of(count, kind).pool.backend.servers
        watched = Watched(*those, balance=kind, check=Check("tcp"))
        watched.pick()
        steps = []
        for ok in (False, True):
            for member in watched.members[1:]:

                def change(member: Member = member, ok: bool = ok) -> None:  # noqa: FBT001
                    watched.pool.set_checked(member, ok=ok, why="")
                    assert watched.pick().state is MemberState.UP

                steps.append(steps_in(change))
        return max(steps[1:])  # the first one counts all

    def test_change(self) -> None:
        """A client that comes after a change of one server gets one that is up; all are looked at once for many changes."""
        for kind in _KINDS_BY_COST:
            few, many = (self._after_changes(count, kind) for count in (150, 600))
            self.assertLess(many, 1.3 * few, kind)

    def test_up_again(self) -> None:
        """Of many servers, those that come up get clients within a moment, and at once where no other is up."""
        watched = Watched(*pool_of(150, "round-robin").pool.backend.servers, check=Check("tcp"))
        watched.pick()
        first, second, *others = watched.members
        for member in (*others, second, first):
            watched.pool.set_checked(member, ok=False, why="")
        self.assertIs(watched.pool.pick(), Unavailable.NO_SERVER)
        for member in (first, second):
            watched.pool.set_checked(member, ok=True, why="")
        watched.pool.set_checked(first, ok=False, why="")
        self.assertIs(watched.pick(), second)
        for member in (*others, first):
            watched.pool.set_checked(member, ok=True, why="")
        watched.clock.advance(0.1)
        self.assertEqual({watched.pick() for _ in range(150)}, {*watched.members})

    def test_full(self) -> None:
        """While many are full, it is known at once that none is up, and that one is again."""
        those = pool_of(150, "round-robin").pool.backend.servers
        pool = Watched(*those, check=Check("tcp"), max_connections=1).pool
        for found in (pool.members[0], Unavailable.FULL):
            self.assertIs(pool.pick(), found)
        for ok, found in ((False, Unavailable.NO_SERVER), (True, Unavailable.FULL)):
            for member in pool.members:
                pool.set_checked(member, ok=ok, why="")
            self.assertIs(pool.pick(), found)

    def test_probe(self) -> None:
        """One of many is tried as soon as its ejection is over, where no other is up."""
        those = pool_of(150, "round-robin").pool.backend.servers
        eject = Ejection(1, 5, 0.01, lone=True)
        watched = Watched(*those, check=Check("tcp"), eject=eject, fallback=SPARE)
        first, *others = watched.members
        for member in others:
            watched.pool.set_checked(member, ok=False, why="")
        watched.pool.failed(watched.pick())
        self.assertIs(watched.pool.pick(), Unavailable.NO_SERVER)
        watched.clock.advance(0.01)
        self.assertIs(watched.pick(), first)

    def test_held(self) -> None:
        """Clients that are held until the only one before many backup servers is down go to those."""
        first, *others = pool_of(150, "round-robin").pool.backend.servers
        those = first, *(attrs.evolve(other, backup=True) for other in others)
        watched = Watched(*those, check=Check("tcp"))
        pool, waiting = watched.pool, watched.pool.waiting
        waiting.clock = watched.clock
        waiting.hold_until(1.0)
        self.assertIs(pool.pick_in_turn(), pool.members[0])
        pool.set_checked(pool.members[0], ok=False, why="")
        waiting.hold_until(0.0)
        self.assertIs(watched.pick(), pool.members[1])
