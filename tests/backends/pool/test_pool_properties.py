from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import SPARE, Watched, servers
from tests.support.examples import scaled
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Check, Ejection, Outcome, Refusal

_NAME = "db.example.com:80"
_LIMIT = 5


class PoolMachine(RuleBasedStateMachine):
    """A pool with every kind of server, and connections that come, fail, stand and go."""

    attempts = Bundle("attempts")
    health = Bundle("health")

    fallback: Outcome = Refusal.CLOSE

    def __init__(self) -> None:
        super().__init__()
        named = servers(_NAME, max_connections=2)
        self.name = named[0]
        self.watched = Watched(
            *servers("10.0.0.1:80"),
            *servers("10.0.0.2:80", weight=3, max_connections=1),
            *servers("10.0.0.3:80", down=True),
            *servers("10.0.0.9:80", backup=True),
            *named,
            balance="least-connections",
            eject=Ejection(2, 5, 10),
            check=Check("tcp", rise=2, fall=2),
            max_connections=_LIMIT,
            fallback=self.fallback,
        )
        self.pool = self.watched.pool
        self.held: list[Member] = []
        self.was_short = False

    def is_out(self, member: Member) -> bool:
        if member.state is MemberState.EJECTED:
            return member.health.out_until > self.watched.clock.seconds()
        return member.state is not MemberState.UP

    @rule(
        target=attempts,
        client=st.sampled_from(["", "10.0.0.1", "2001:db8::1"]),
        tried=st.sets(st.integers(0, 6), max_size=3),
    )
    def pick(self, client: str, tried: set[int]) -> object:
        members = self.pool.members
        avoided = [members[number] for number in tried if number < len(members)]
        out = {id(member) for member in members if self.is_out(member)}
        untried = [member for member in members if member not in avoided]
        up = [member for member in untried if id(member) not in out]
        if not up and self.fallback is not SPARE:
            up = [
                member
                for member in untried
                if member.state in {MemberState.EJECTED, MemberState.PROBING}
            ]
        found = self.pool.pick(client, avoided)
        if isinstance(found, Unavailable):
            assert (found is Unavailable.FULL) == bool(up)
            return multiple()
        assert found in up
        # A backup is for when none of the others is up, or has room.
        assert not found.server.backup or not any(
            member.has_room() for member in up if not member.server.backup
        )
        self.held.append(found)
        return found

    @rule(target=health, member=consumes(attempts))
    def connect(self, member: Member) -> Member:
        self.pool.connected(member)
        return member

    @rule(member=consumes(attempts))
    def fail(self, member: Member) -> None:
        self.held.remove(member)
        self.pool.failed(member)

    @rule(target=attempts, member=consumes(attempts))
    def retry(self, member: Member) -> object:
        self.held.remove(member)
        found = self.pool.next_after(member, "", (member,))
        if isinstance(found, Unavailable):
            return multiple()
        assert found is not member
        self.held.append(found)
        return found

    @rule(member=consumes(attempts))
    def abandon(self, member: Member) -> None:
        self.held.remove(member)
        self.pool.abandoned(member)

    @rule(member=consumes(health))
    def release(self, member: Member) -> None:
        self.held.remove(member)
        self.pool.released(member)

    @rule(number=st.integers(0, 6), ok=st.booleans())
    def check(self, number: int, ok: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        members = self.pool.members
        self.pool.check_result(members[number % len(members)], ok=ok, why="")

    @rule(
        hosts=st.lists(st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"])), spare=st.booleans()
    )
    def resolve(self, hosts: list[str], spare: bool) -> None:  # noqa: FBT001
        addresses = [ResolvedAddress(host, 80, priority=spare * n) for n, host in enumerate(hosts)]
        self.pool.set_addresses(self.name, addresses)

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.watched.clock.advance(seconds)

    @invariant()
    def counts(self) -> None:
        assert self.pool.connections == len(self.held) <= _LIMIT
        for member in {*self.held, *self.pool.members}:
            assert member.connections == self.held.count(member)
            most = member.server.max_connections
            assert not most or member.connections <= most

    @invariant()
    def one_probe(self) -> None:
        for member in self.pool.members:
            assert member.state is not MemberState.PROBING or self.is_out(member)

    @invariant()
    def shortage(self) -> None:
        members = self.pool.members
        is_short = bool(members) and not any(member.state is MemberState.UP for member in members)
        reported = [one for one in self.watched.changes if one in {"short", "up again"}]
        if is_short is not self.was_short:
            assert reported[-1:] == ["short" if is_short else "up again"]
        self.was_short = is_short
        self.watched.changes.clear()

    def teardown(self) -> None:
        for member in self.held:
            self.pool.released(member)
        assert self.pool.connections == 0
        assert all(member.connections == 0 for member in self.pool.members)


class PoolProperties(SynchronousTestCase):
    def test_machine(self) -> None:
        # Where there are other servers, nobody who is out has to be a last resort.
        for PoolMachine.fallback in (Refusal.CLOSE, SPARE):
            run_state_machine_as_test(
                PoolMachine,
                settings=settings(max_examples=scaled(60), stateful_step_count=40, deadline=None),
            )
