"""The pool of a backend: a member for each address of its servers, their states, and the choice of one for a connection."""

import enum
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random
from typing import Literal

import attrs

from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.pool.balance import Choice
from txmux.backends.pool.hold import WaitingClients
from txmux.backends.pool.member import SUSPECT, Member, ResolvedAddress, Tiers, is_due
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.backends.pool.server_health import (
    ENOUGH_SOURCES,
    UNCHECKED,
    BackendHealth,
    MemberState,
    ServerHealth,
)
from txmux.rules.model import Backend, Refusal, Server
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.formatting import plural
from txmux.transport import is_address

_STEPS = 100  # steps of a server's slow start
_AT_ONCE = -math.inf  # before the next choice
_FEW = 100
_PAUSE = 0.0002
"""Seconds for each of more than `_FEW` members, between two times that all are arranged: this takes up to a tenth of that."""

_START = 10.0  # seconds after a start in which the first addresses of a name do not start slowly


class Unavailable(enum.Enum):
    """Why a connection gets no member."""

    NO_SERVER = enum.auto()  # no member is up, or this connection has tried all that are
    FULL = enum.auto()  # max_connections is reached


class Availability(enum.Enum):
    """How many members of a pool are up; a name without an address counts as one that is not."""

    ALL = enum.auto()
    SOME = enum.auto()
    NONE = enum.auto()


class BackendPool:
    """Chooses a member for each connection to a backend, and counts the connections.

    The calls for one connection are `pick`, then `connected`, `failed` or `abandoned`. An established one ends with `released`,
    or with `moved_away` and later `release_slot`. A member counts a connection from `pick` on, so that connections being made
    cannot exceed a limit.

    Args:
        on_change: Called with a member whose state has changed, and the previous state; ``member.health.why`` is the cause. Also
            called for a member drained by an operator, with the same state, when health checks find it down, or up again.
        backend_health: The health of the same servers, shared with the pools of previous rules; a new one if not given.

    Attributes:
        on_members: Called with servers, as the rules write them, when a look-up or an operator has changed their members.
        on_checked: Called with a member that health checks have found down, or up again.
        on_shortage: Called with true when no member is up any longer, and with false when one is up again.
        on_availability: Called when `availability` has changed.
        states: How many members have each state, without those that are final.
        availability: How many members are up.
        proxies: The addresses of the proxy, if there is one.
        sockets: How those to the servers are made.
        on_room: Called when a queued connection may get a member, or can get none: see `txmux.backends.pool.queue`.
    """

    def __init__(
        self,
        backend: Backend,
        seconds: Callable[[], float],
        on_change: Callable[[Member, MemberState], None] = lambda _member, _before: None,
        random: Random | None = None,
        backend_health: BackendHealth | None = None,
        counters: ProcessCounters | None = None,
    ) -> None:
        self.backend = backend
        self.sockets = ServerSocketPlan.of(backend)
        self._counters = counters or ProcessCounters()
        self.backend_health = backend_health or BackendHealth()
        self.backend_health.add_pool(self)
        self.on_room: Callable[[], None] | None = None
        self.on_members: Callable[..., None] | None = None
        self.on_checked: Callable[[Member], object] | None = None
        self.on_shortage: Callable[[bool], None] | None = None
        self.on_availability: Callable[[], object] | None = None
        self._seconds = seconds
        self._on_change = on_change
        # If the server depends on the client, a failure says nothing about the servers of other clients.
        self._depends = any(server.depends_on_client for server in backend.servers)
        self._eject = None if self._depends else backend.eject
        self._random = random or Random()  # nosec B311  # noqa: S311 - not for secrets
        self._usable: list[Choice] = []
        self._choices: list[Choice] = []
        self._sole: Member | None = None  # who gets each connection, without a choice
        self._has_final = any(server.final for server in backend.servers)
        self._limited = any(server.max_connections for server in backend.servers)
        self._by_address: dict[str, Member] = {}  # made when it is needed
        proxy = backend.proxy
        self._members: dict[Server, list[Member]] = {
            server: [self._member(server, server)]
            if proxy is not None or not is_name(server)
            else []
            for server in backend.servers
        }
        self.proxies: tuple[Server, ...] = (
            () if proxy is None or is_name(proxy.server) else (proxy.server,)
        )
        # Members that no look-up returns any longer, but that still have connections.
        self._leaving: list[Member] = []
        self._tiers, self._arrange_at = Tiers(), _AT_ONCE
        self._may_arrange_at = _AT_ONCE
        self._has_changed = False  # since then
        # With a fallback backend, connections go there rather than to an ejected member.
        self._has_last_resort = isinstance(backend.fallback, Refusal) or backend.hold > 0
        self._is_in_turn = False
        self._is_retired = self._is_resolved = False
        self.availability = Availability.NONE
        # A pool of prepared rules shares health with the current pool, and must not change it before `commit`.
        self._is_current = not self.backend_health.others(self)
        self.has_taken_over = False
        self._start_until = self._seconds() + _START if self._is_current else 0.0
        self._answered: set[Server] = set()
        self._count_members()
        if self._is_current:
            self.backend_health.in_shortage = self._is_short()
            self._record_new_members(self.members, is_start=True)
        self._arrange()

    @property
    def connections(self) -> int:
        return self.backend_health.connections

    @property
    def tiers(self) -> Tiers:
        if self._has_changed:
            self._arrange()
        return self._tiers

    @property
    def is_as_at_start(self) -> bool:
        """Whether nothing has happened to any member since the start of the process."""
        self.backend_health.settle()
        if self.backend.slow_start:
            return False  # new servers are those of which another process reports nothing
        return all(member.health.is_as_at_start for member in self.members)

    @property
    def members(self) -> list[Member]:
        return [member for members in self._members.values() for member in members]

    def members_of(self, server: Server) -> list[Member]:
        return self._members.get(server, [])

    def pick(self, affinity: str = "", tried: Collection[Member] = ()) -> Member | Unavailable:
        """Choose a member, other than those already tried; `affinity` is the key for balancing by a hash."""
        # Most backends have no ejected server, so the clock is rarely read.
        arrange_at = self._arrange_at
        if arrange_at < math.inf and self._seconds() >= arrange_at:
            self._arrange()
        sole = self._sole
        member = self._choose(affinity, tried) if sole is None or tried else sole
        if isinstance(member, Unavailable):
            return member
        health, backend_health = member.health, self.backend_health
        health.connections += 1
        backend_health.connections += 1
        if backend_health.changed is not None:
            backend_health.changed.add(health)
        if (
            health.state is not MemberState.UP
            and member.state is MemberState.EJECTED
            and is_due(member, self._seconds())
        ):
            self._change(
                member, MemberState.PROBING, "ejection expired; probing with one connection"
            )
        return member

    def pick_in_turn(
        self, affinity: str = "", tried: Collection[Member] = ()
    ) -> Member | Unavailable:
        """Choose a member for the held client whose turn it is; meanwhile, those `waiting` may block all other clients."""
        self._is_in_turn = True
        try:
            return self.pick(affinity, tried)
        finally:
            self._is_in_turn = False

    @property
    def has_due(self) -> bool:
        """Whether the next client is connected to a server whose ejection is over."""
        now = self._seconds()
        return any(is_due(member, now) and not member.server.final for member in self.members)

    def state_of(self, member: Member) -> tuple[MemberState, str]:
        """Return the state and why it is so. An ejection that is over is none: it would stay for as long as no client comes."""
        if is_due(member, self._seconds()):
            return MemberState.UP, "ejection expired; the next connection shows whether it is well"
        return member.state, member.why

    def has_untried(self, tried: Collection[Member]) -> bool:
        if not (self._has_final or self.states[MemberState.UP]):
            return False
        return any(
            member.state is MemberState.UP and member not in tried for member in self.members
        )

    @property
    def waiting(self) -> WaitingClients:
        return self.backend_health.waiting

    def seconds_until_probe(self) -> float:
        probe_at = math.inf if self.waiting.blocks else self.tiers.probe_at
        return max(0.0, probe_at - self._seconds())

    def _choose(self, affinity: str, tried: Collection[Member]) -> Member | Unavailable:
        backend, backend_health = self.backend, self.backend_health
        if backend_health.waiting.blocks and not self._is_in_turn:
            return Unavailable.NO_SERVER
        if backend_health.choosing is not self._choices:
            self._begin_choosing()
        elif backend_health.changed:
            for choice in self._choices:
                choice.update(backend_health.changed)
            backend_health.changed.clear()
        is_full = 0 < backend.max_connections <= backend_health.connections
        for choices in (self._usable, self._last_resort):
            untried = [one for one in choices if one.has_untried(tried)] if tried else choices
            # Where clients can wait, they wait for room at the servers that are to be used first.
            for choice in untried[: 0 if is_full else 1 if backend.queue else None]:
                member = choice.pick(affinity, tried)
                if member is not None:
                    return member
            is_stale = self._has_changed or self._tiers.probe_at <= self._seconds()
            # Another server may be up; where all are full, it matters only whether there is one.
            if is_stale and not (is_full and untried and self.states[MemberState.UP] > len(tried)):
                self._arrange()
                return self._choose(affinity, tried)
            if untried:
                return Unavailable.FULL
        return Unavailable.NO_SERVER

    def _begin_choosing(self) -> None:
        """Take over from the pool that chose last, or from before a change."""
        backend, backend_health = self.backend, self.backend_health
        backend_health.settle()
        self._usable, self._last_resort = (
            [Choice(members, backend.balance, self._random) for members in tiers]
            for tiers in (self.tiers.usable, self.tiers.last_resort)
        )
        self._choices = [*self._usable, *self._last_resort]
        backend_health.choosing = self._choices
        if self._limited or backend.balance == "least-connections":
            backend_health.changed = set()

    def adopt(self, server: str, *, is_established: bool = True) -> Member | None:
        """Count a connection of another process to a server's address; end it by `released`.

        One that is not established yet continues as after `pick`.
        """
        member = self.member_at(server)
        if member is not None:
            self.backend_health.adopt(member.health)
            if is_established:
                member.counts.adopted()
        return member

    def member_at(self, server: str) -> Member | None:
        """Return the member with an address, written as in the access log."""
        if self._depends:
            return next((member for member in self.members if member.is_at(server)), None)
        if not self._by_address:
            self._by_address = {member.target.text: member for member in reversed(self.members)}
        return self._by_address.get(server)

    def connected(self, member: Member) -> None:
        member.counts.connected()
        if PORT_SHORTAGE.failing:
            PORT_SHORTAGE.connected(self.backend.name, member.server.text)
        member.health.consecutive_failures = 0
        member.health.unanswered.clear()
        state = member.health.state
        if state is MemberState.UP:
            return
        if state is MemberState.PROBING:
            self._change(member, MemberState.UP, "probe connection succeeded")
            self._report_room()
        elif (
            state is MemberState.EJECTED
            and self._has_last_resort
            and not self.states[MemberState.UP]
        ):
            self._change(member, MemberState.UP, "a connection to it succeeded")
            self._report_room()

    def failed(self, member: Member) -> None:
        self._uncount(member)
        self._count_failure(member)
        self._report_room()

    def next_after(
        self,
        member: Member,
        affinity: str,
        tried: Collection[Member],
        *,
        is_local_fault: bool = False,
        in_turn: bool = False,
    ) -> Member | Unavailable:
        """Record a failed connection, and choose the next member, ahead of queued clients, if ``retries`` allows another.

        With `is_local_fault`, the cause is on this machine, so the failure does not count against the server.
        """
        again = len(tried) <= self.backend.retries and not member.server.final
        if is_local_fault:
            self.abandoned(member)
        elif again and not in_turn:
            self._uncount(member)
            self._count_failure(member)
            picked = self.pick(affinity, tried)
            self._report_room()
            return picked
        else:
            self.failed(member)
        if not again:
            return Unavailable.NO_SERVER
        return (self.pick_in_turn if in_turn else self.pick)(affinity, tried)

    def abandoned(self, member: Member) -> None:
        """Record a connection that was cancelled before it was established; it does not count against the member."""
        self._uncount(member)
        if member.health.state is MemberState.PROBING:
            self._change(member, MemberState.EJECTED, "probe connection abandoned")
        self._report_room()

    def unanswered(self, member: Member, source: int) -> None:
        """Record a flow that a server never answered. Several in succession, of several sources, may eject the server."""
        unanswered, eject = member.health.unanswered, self._eject
        if eject is not None and eject.unanswered:
            unanswered[source] += 1
            count = unanswered.total()
            if count >= eject.unanswered and len(unanswered) >= min(
                ENOUGH_SOURCES, eject.unanswered
            ):
                self.eject_silent(member, f"{plural(count, 'flow')} in a row unanswered")
                unanswered.clear()
        self.abandoned(member)

    def eject_silent(self, member: Member, why: str) -> None:
        """Eject a server that does not answer, unless it is out already or the last one."""
        health, eject = member.health, self._eject
        if eject is None or health.state is not MemberState.UP:
            return
        if eject.lone or not self._is_last_usable(member):
            health.out_until = self._seconds() + eject.seconds
            self._change(member, MemberState.EJECTED, why)

    def released(self, member: Member) -> None:
        member.counts.released()
        self._uncount(member)
        health = self.backend_health
        if self.on_room is not None or health.to_call or len(health.pools) > 1:
            self._report_room()

    @property
    def is_limited(self) -> bool:
        return self._limited or self.backend.max_connections > 0

    def moved_away(self, member: Member) -> None:
        member.counts.released()  # its slot stays taken until `release_slot`

    def release_slot(self, member: Member, free: Callable[[], None]) -> None:
        """Release the slot of a connection that has `moved_away`. Call `free` unless a queued client takes the slot."""
        self.backend_health.call_when_freed(free)
        self._uncount(member)
        self._report_room()

    def check_result(self, member: Member, *, ok: bool, why: str) -> bool:
        """Count the result of a check; return whether so many contradict the member's state that it changes.

        Of a server that nothing is known of, the first one is enough.
        """
        check, health = self.backend.check, member.health
        if check is None or not member.state.is_checked:
            return False
        is_down, is_first = health.state is MemberState.DOWN, health.contrary == UNCHECKED
        if ok and health.contrary and not is_first and member.state is MemberState.UP:
            member.counts.recovered()
        health.contrary = health.contrary + 1 if ok is is_down else 0
        if health.contrary < (check.rise if is_down else check.fall):
            return False
        how = f"{plural(check.rise, 'check')} succeeded"
        if not is_down:
            how = f"{plural(1 if is_first else check.fall, 'check')} failed; last: {why}"
        self.set_checked(member, ok=ok, why=how)
        return True

    def set_checked(self, member: Member, *, ok: bool, why: str) -> None:
        """Apply what checks have found, here or in another process: the member is down, or is not."""
        health = member.health
        is_down = health.state is MemberState.DOWN
        if self.backend.check is None or not member.state.is_checked or ok is not is_down:
            return
        health.contrary = 0
        if ok:
            health.failed_at.clear()
            health.consecutive_failures = 0
            health.unanswered.clear()
        self._change(member, MemberState.UP if ok else MemberState.DOWN, why)
        if self.on_checked is not None:
            self.on_checked(member)
        self._report_room()

    def set_addresses(self, server: Server, addresses: Iterable[ResolvedAddress]) -> None:
        """Apply the result of a look-up: replace the members of a name, or the addresses of the proxy. Known addresses keep their state."""
        if server not in self._members:
            self.proxies = tuple(_target(server, address) for address in addresses)
            return
        resolved = {(address.host, address.port): address for address in addresses}
        priorities = sorted({address.priority for address in resolved.values()})
        before = self._members[server]
        existing = {
            (member.target.host, member.target.port): member
            for member in (*before, *self._leaving)
            if member.server == server
        }
        members, is_restored = [], False
        # Known members keep their order, since name servers rotate their answers.
        for key in dict.fromkeys((*(key for key in existing if key in resolved), *resolved)):
            address = resolved[key]
            member = existing.get(key) or self._member(server, _target(server, address))
            is_restored |= self._restore_if_unchecked(member)
            member.name = address.name or server.host
            member.share = max(1, address.weight)
            member.rank = (server.backup, priorities.index(address.priority))
            members.append(member)
        self._members[server], self._by_address = members, {}
        current = {*members}
        for member in before:
            if member not in current:
                member.health.came_at = None
        if self._is_current:
            is_first = server not in self._answered and self._seconds() < self._start_until
            self._record_new_members(members, is_start=is_first)
        self._answered.add(server)
        self._is_resolved |= bool(members)
        self._leaving = [
            member
            for member in (*before, *self._leaving)
            if member.connections and member not in current
        ]
        if is_restored:
            self._count_members()
        else:
            self._count_addresses(server, before)
        self._update_shortage()
        self._report_room()
        if self.on_members is not None:
            self.on_members(server.text)

    def _count_failure(self, member: Member) -> None:
        eject = self._eject
        state = member.health.state
        is_counted = state in {MemberState.UP, MemberState.PROBING} and not member.server.final
        if eject is None or not is_counted:
            return
        if not eject.lone and self._is_last_usable(member):
            return
        now = self._seconds()
        failed_at = member.health.failed_at
        failed_at.append(now)
        member.health.consecutive_failures += 1
        if state is MemberState.PROBING:
            why = "probe connection failed"
        elif len(failed_at) >= eject.failures and now - failed_at[0] <= eject.within:
            why = f"{plural(eject.failures, 'connection')} failed within {eject.within:g} s"
        elif member.health.consecutive_failures >= eject.failures:
            # Slow timeouts may together take longer than `within`.
            why = f"{plural(eject.failures, 'connection')} in a row failed"
        else:
            if len(failed_at) >= eject.failures:
                failed_at.popleft()
            return
        failed_at.clear()
        member.health.consecutive_failures = 0
        member.health.out_until = now + eject.seconds
        self._change(member, MemberState.EJECTED, why)

    def _is_last_usable(self, member: Member) -> bool:
        return all(
            m.health is member.health or m.state.is_out or m.server.final for m in self.members
        )

    def _change(self, member: Member, state: MemberState, why: str) -> None:
        before, health = member.state, member.health
        was = health.state
        by_checks = MemberState.DOWN in {was, state}
        if not SUSPECT.issuperset({was, state}):  # else it has been out since before
            health.since = self._seconds()
        health.state, health.why = state, why
        if state is MemberState.UP:
            health.came_at = health.since
        self._count_change(health, was)
        if member.state is not before or by_checks:
            self._on_change(member, before)
        self._update_shortage()
        for other in self.backend_health.others(self):
            other.health_changed(health, was)

    def health_changed(self, health: ServerHealth, was: MemberState) -> None:
        self._count_change(health, was)
        self._update_shortage()

    def rearrange(self) -> None:
        """Arrange the members before the next choice: once for all changes until then, as thousands may change together."""
        self._arrange_at, self._has_changed = _AT_ONCE, True

    def _rearrange_soon(self, health: ServerHealth) -> None:
        """Choose a server that is not up no longer; one that is up is chosen once the others are arranged again, unless there is none."""
        if self._sole is not None or self._may_arrange_at == _AT_ONCE:
            self.rearrange()
            return
        state = health.state
        if state is not MemberState.UP:
            for choice in self._choices if state is MemberState.DOWN else self._usable:
                choice.exclude(health)
        self._arrange_at, self._has_changed = min(self._arrange_at, self._may_arrange_at), True

    def overrides_changed(self, previous_states: Mapping[str, MemberState | None]) -> None:
        """Apply an operator's overrides, which have been stored; `previous_states` are those of the overrides before, by the server."""
        for member in self.members:
            if member.server.text not in previous_states:
                continue
            previous_state = previous_states[member.server.text]
            is_lifted = previous_state is not None and member.health.held is None
            if is_lifted and member.state is MemberState.UP:  # it starts slowly from now on
                member.health.came_at = member.health.since = self._seconds()
            if not self._is_retired:
                # Of the state before this change: the rules' `down` goes first, then the previous override, then the health.
                before = previous_state or member.health.state
                before = MemberState.DISABLED if member.server.down else before
                if member.state is not before:
                    self._on_change(member, before)
        self._members_changed()
        if self.on_room is not None:
            self.on_room()
        if self.on_members is not None:
            self.on_members(*previous_states)

    def since(self, member: Member) -> float | None:
        """Return how many seconds ago a member came to its state, or was ejected if it is tried since; ``None`` if never."""
        since = member.health.since
        return max(0.0, self._seconds() - since) if since else None

    def _update_shortage(self) -> None:
        health, is_short = self.backend_health, self._is_short()
        if self._is_current and health.in_shortage is not is_short:
            health.in_shortage = is_short
            if self.on_shortage is not None:
                self.on_shortage(is_short)

    def _is_short(self) -> bool:
        # A name has no members until its first look-up.
        is_known = self._is_resolved or any(self._members.values())
        return is_known and not self.states[MemberState.UP]

    def ramp(self, member: Member) -> float:
        return member.ramp(self._seconds(), self.backend.slow_start)

    def pace(self) -> float:
        """Return the share of the usual rate at which held clients are released: less than 1 during a slow start of all servers, 0 after `retire`."""
        if self._is_retired:
            return 0.0
        if not self.backend.slow_start:  # it is asked often, and there may be thousands of members
            return 1.0
        ramps = [self.ramp(member) for member in self.members if member.state is MemberState.UP]
        return max(ramps, default=1)

    def effective_weight(self, member: Member) -> float:
        return round(member.full_weight * self.ramp(member), 2)

    def _arrange(self) -> None:
        self.backend_health.settle()
        now, slow_start = self._seconds(), self.backend.slow_start
        step_at = math.inf
        for member in self.members:
            ramp = member.ramp(now, slow_start)
            member.weight = member.full_weight * ramp
            if ramp < 1:
                step_at = now + slow_start / _STEPS
        tiers = Tiers.arranged(self.members, now, has_last_resort=self._has_last_resort)
        self._tiers, self._has_changed = tiers, False
        count = len(self.members)
        self._may_arrange_at = _AT_ONCE if count <= _FEW else now + count * _PAUSE
        self._arrange_at = max(min(tiers.probe_at, step_at), self._may_arrange_at)
        self.find_sole()

    def find_sole(self) -> None:
        """Find who gets each connection; those `waiting` may block all."""
        first = self._tiers.usable[0] if self._tiers.usable else ()
        is_sole = len(first) == 1 and not (
            self._has_changed or self.is_limited or self.waiting.blocks
        )
        self._sole = first[0] if is_sole else None

    def _members_changed(self) -> None:
        self._count_members()
        self._update_shortage()

    def _count_members(self) -> None:
        counted = [member for member in self.members if not member.server.final]
        self.states = Counter(member.state for member in counted)
        # A name has no members until it has been looked up.
        self._without_address = sum(not members for members in self._members.values())
        self._by_health: Counter[ServerHealth] | None = None
        self.rearrange()
        self._note_counts()

    def _count_addresses(self, server: Server, before: Collection[Member]) -> None:
        """Count the members of a name, without a look at those of all others."""
        members, by_health = self._members[server], self._by_health
        self._without_address += (not members) - (not before)
        if not server.final:
            self.states.subtract(member.state for member in before)
            self.states.update(member.state for member in members)
        if by_health is not None and not (server.final or server.down):
            by_health.update(member.health for member in members)
            for member in before:
                by_health[member.health] -= 1
                if not by_health[member.health]:
                    del by_health[member.health]  # it is forgotten with its last member
        self.rearrange()
        self._note_counts()

    def _count_change(self, health: ServerHealth, was: MemberState) -> None:
        """Count the members with this health, of which there may be several, without a look at all others."""
        if self._by_health is None:
            self._by_health = Counter(
                m.health for m in self.members if not (m.server.final or m.server.down)
            )
        if health.held is None:
            self.states[was] -= self._by_health[health]
            self.states[health.state] += self._by_health[health]
        self._rearrange_soon(health)
        self._note_counts()

    def _note_counts(self) -> None:
        was, self.availability = self.availability, Availability.NONE
        if up := self.states[MemberState.UP]:
            is_all = not self._without_address and up == self.states.total()
            self.availability = Availability.ALL if is_all else Availability.SOME
        if self.availability is not was and self.on_availability is not None:
            self.on_availability()

    def _record_new_members(self, members: Iterable[Member], *, is_start: bool = False) -> None:
        """Start the slow start of new and re-enabled members; with `is_start`, of none, since all are new."""
        for member in members:
            health = member.health
            if member.server.down:
                health.came_at = None
            elif health.came_at is None:
                health.came_at = 0.0 if is_start else self._seconds()

    def _uncount(self, member: Member) -> None:
        if not member.takes_slot:
            return
        health, backend_health = member.health, self.backend_health
        health.connections -= 1
        backend_health.connections -= 1
        if backend_health.changed is not None:
            backend_health.changed.add(health)
        if self._leaving and not member.connections and member in self._leaving:
            self._leaving.remove(member)

    def _report_room(self) -> None:
        if self.on_room is not None:
            self.on_room()
        health = self.backend_health
        if len(health.pools) > 1:
            for other in health.others(self):
                if other.on_room is not None:
                    other.on_room()
        if health.to_call:
            health.call_freed()

    def commit(self) -> None:
        """Become the current pool of the backend, when a reload is committed."""
        for member in self.members:
            self._restore_if_unchecked(member)
        self._is_current = self.has_taken_over = True
        here = {id(member.health) for member in self.members}
        for other in self.backend_health.others(self):
            for member in other.members:
                if id(member.health) not in here:
                    member.health.came_at = None
        self._record_new_members(self.members)
        self._members_changed()
        self._report_room()

    def retire(self) -> None:
        """Stop reporting changes; the pool is only used for connections of previous rules."""
        self.on_shortage = self.on_members = None
        self._is_retired, self._is_current = True, False

    def _restore_if_unchecked(self, member: Member) -> bool:
        health = member.health
        was = health.state
        if was is MemberState.DOWN:
            stays_out = self.backend.check is not None
        else:
            stays_out = self._eject is not None
        is_restored = not stays_out and was is not MemberState.UP
        if is_restored:
            health.state, health.why, health.since = MemberState.UP, "", self._seconds()
            health.came_at = health.since
            for other in self.backend_health.others(self):
                other.health_changed(health, was)
        return is_restored

    def _member(self, server: Server, target: Server) -> Member:
        health = self.backend_health.health_of((server.text, target.text))
        rank = (server.backup, 0)
        counts = self._counters.server(self.backend.name, server.text)
        return Member(
            server, target, server.host, server.weight, rank, health, counts, self.sockets
        )


def no_server_up(backend: str) -> str:
    return f"[backend {backend}]: no server is up"


def is_name(server: Server) -> bool:
    return bool(server.query or server.kind == "srv") or (
        server.kind in {"tcp", "udp"}
        and not is_address(server.host)
        and not server.depends_on_client
    )


def _target(server: Server, address: ResolvedAddress) -> Server:
    kind: Literal["tcp", "udp"] = "udp" if server.kind == "udp" else "tcp"
    target = server if server.kind == kind else attrs.evolve(server, kind=kind)
    return target.at(address.host, address.port)
