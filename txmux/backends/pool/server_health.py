"""The health of servers, and an operator's overrides, shared by the pools of all configurations."""

import enum
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary, ref

import attrs

from txmux.access.admission import Counter as SharedCounter
from txmux.access.admission import Tally
from txmux.backends.pool.hold import WaitingClients
from txmux.classes import define, frozen
from txmux.wire import codec
from txmux.wire.codec import Origin, sent

ENOUGH_SOURCES = 3
"""Of clients, for saying something about a server: what one source meets may be its own doing."""

_MOST_RECALLED = 10_000  # servers; only reached if names change repeatedly
UNCHECKED = 1 << 30
"""More contrary checks than any ``fall`` asks for: of a server that no check has seen, the next one decides."""


class MemberState(enum.Enum):
    """Whether a member gets connections."""

    UP = "up"
    DOWN = "down"  # its checks fail
    EJECTED = "ejected"  # connections to it failed, so it gets none for a while
    PROBING = "probing"  # after that, one connection tries it
    DISABLED = "disabled"  # marked down in the rules
    DRAIN = "drain"  # an operator has stopped new connections
    MAINTENANCE = "maintenance"  # the same, without checks

    @property
    def is_out(self) -> bool:
        return self in {MemberState.DISABLED, MemberState.DRAIN, MemberState.MAINTENANCE}

    @property
    def is_checked(self) -> bool:
        return self not in {MemberState.DISABLED, MemberState.MAINTENANCE}


# The probing connection belongs to this process; another one probes again.
_STATE = codec.converted(
    MemberState,
    lambda state: (MemberState.EJECTED if state is MemberState.PROBING else state).value,
)


@define(eq=False)
class ServerHealth:
    """The health of one address of a server. Only pools change it."""

    state: MemberState = sent(_STATE, default=MemberState.UP)
    held: MemberState | None = None  # set by an operator; None if it depends on its health
    weight: int | None = None  # set by an operator; None for that of the rules
    connections: int = 0  # established or being made
    why: str = sent(codec.TEXT, default="")
    credit: float = sent(codec.NUMBER, default=0)
    # The last ones, as ejection counts.
    failed_at: deque[float] = sent(codec.each(codec.AGE, deque), name="failed", factory=deque)
    consecutive_failures: int = 0  # connections that failed since the last success
    out_until: float = sent(codec.LEFT, name="out", default=0.0)
    # Checks in a row that contradict the state.
    contrary: int = sent(codec.WHOLE, default=UNCHECKED)
    # When the state was last changed; 0 if it never was.
    since: float = sent(codec.optional(codec.AGE, 0.0), name="age", default=0.0)
    expected: int = 0  # connections that other processes have, of which some may be handed over
    # When it came up or came new; 0 is with the backend, None not yet.
    came_at: float | None = sent(codec.optional(codec.AGE, 0.0), name="came", default=None)
    # Flows of datagrams since the last that it has answered, by their source.
    unanswered: Counter[int] = attrs.field(factory=Counter)

    @property
    def is_as_at_start(self) -> bool:
        so_far = self.since, self.credit, self.connections, self.out_until
        is_untroubled = not (self.failed_at or any(so_far)) and self.contrary in {0, UNCHECKED}
        return self.state is MemberState.UP and is_untroubled


class _PoolOfHealth(Protocol):
    on_room: Callable[[], None] | None

    @property
    def members(self) -> Sequence[Any]: ...

    def find_sole(self) -> None: ...

    def health_changed(self, health: ServerHealth, was: MemberState) -> None: ...

    def pace(self) -> float: ...

    def overrides_changed(self, previous_states: Mapping[str, MemberState | None]) -> None: ...


class _HealthChoice(Protocol):
    def settle(self) -> None: ...


class BackendHealth:
    """The shared state of one backend's pools: the one of the current rules, and those of older rules.

    Connections keep the pool of the rules under which they were accepted. So a server is counted, ejected and let back
    in by all pools together.

    Attributes:
        choosing: What keeps the servers' credit since a choice, until `settle`.
        changed: The servers whose number of connections has changed since then; ``None`` if no choice depends on it.
        in_shortage: Whether no server is up by the current rules, as its pool has last reported.
    """

    choosing: Sequence[_HealthChoice] = ()
    changed: set[ServerHealth] | None = None
    in_shortage = False

    def __init__(
        self,
        overrides: Mapping[str, tuple[MemberState | None, int | None]] | None = None,
        on_waiting: Callable[[bool], object] = lambda _: None,
        tally: Callable[[int], Tally] = Tally,
    ) -> None:
        self._overrides = dict(overrides or {})
        self.connections = 0
        self._known: WeakValueDictionary[tuple[str, str], ServerHealth] = WeakValueDictionary()
        self.pools: list[ref[_PoolOfHealth]] = []
        self._recalled: dict[tuple[str, str], ServerHealth] = {}
        self.to_call: deque[Callable[[], None]] = deque()
        self._level = 0
        self.waiting = WaitingClients(self.pools, on_waiting, tally)

    def health_of(self, key: tuple[str, str]) -> ServerHealth:
        health = self._known.get(key)
        if health is None:
            held, weight = self._overrides.get(key[0], (None, None))
            health = self._known[key] = ServerHealth(held=held, weight=weight)
        return health

    def restore(
        self, key: tuple[str, str], fields: Mapping[str, Any], now: float
    ) -> ServerHealth | None:
        """Take over a server's state, which may get its first pool only later; return it, unless there are too many."""
        if key not in self._recalled and len(self._recalled) >= _MOST_RECALLED:
            return None
        self.settle()
        health = self._recalled[key] = self.health_of(key)
        codec.update(health, {"came": None, **fields}, Origin(now))
        return health

    def settle(self) -> None:
        """Let each server's `credit` be right again, for others than the pool that chose last."""
        for choice in self.choosing:
            choice.settle()
        self.choosing, self.changed = (), None

    def adopt(self, health: ServerHealth) -> None:
        """Count a connection from another process, unless it was expected and so is counted."""
        if health.expected:
            health.expected -= 1
        else:
            self.count(health)

    def count(self, health: ServerHealth) -> None:
        health.connections += 1
        self.connections += 1
        if self.changed is not None:
            self.changed.add(health)

    def expect(self, counts: Mapping[str, int]) -> None:
        """Reserve slots for connections in other processes, by the server, whether they are handed over or end there.

        Which of a server's addresses they have is unknown: each is counted an equal part.
        """
        addresses: dict[str, list[ServerHealth]] = {}
        for (server, _), health in self._known.items():
            addresses.setdefault(server, []).append(health)
        for server, its in addresses.items():
            each, rest = divmod(counts.get(server, 0), len(its))
            for place, health in enumerate(its):
                more = each + (place < rest) - health.expected
                health.expected += more
                health.connections += more
                self.connections += more
                if self.changed is not None:
                    self.changed.add(health)
        for reference in self.pools:
            pool = reference()
            if pool is not None and pool.on_room is not None:
                pool.on_room()

    def override(self, changes: Mapping[str, tuple[MemberState | None, int | None]]) -> None:
        """Apply overrides of servers, by these: the state, and the weight."""
        before = {server: self._overrides.get(server, (None, None))[0] for server in changes}
        self._overrides.update(changes)
        for (server, _), health in self._known.items():
            if server in changes:
                health.held, health.weight = changes[server]
        for reference in self.pools:
            pool = reference()
            if pool is not None:
                pool.overrides_changed(before)

    def call_when_freed(self, free: Callable[[], None]) -> None:
        """Call something once there is one connection less than now, and its slot is still free."""
        if not self.to_call:
            self._level = self.connections
        self.to_call.append(free)

    def call_freed(self) -> None:
        while self.to_call and self.connections < self._level:
            self._level -= 1
            self.to_call.popleft()()

    def add_pool(self, pool: _PoolOfHealth) -> None:
        self.pools.append(ref(pool, self.pools.remove))

    def others(self, pool: _PoolOfHealth) -> list[_PoolOfHealth]:
        pools = (reference() for reference in self.pools)
        return [other for other in pools if other is not None and other is not pool]


@frozen
class ServerOverride:
    """An operator's override of one server; `since` is when the state was set, in seconds since 1970."""

    state: Literal["ready", "drain", "maintenance"] = sent(codec.TEXT, default="ready")
    weight: int | None = sent(codec.optional(codec.WHOLE), default=None)
    since: float = sent(codec.NUMBER, default=0.0)

    @property
    def held(self) -> MemberState | None:
        # Another process, perhaps of another version, may have a state that is not known here.
        return _HELD.get(self.state)


BY_OPERATOR = {
    MemberState.DRAIN: "drained by an operator",
    MemberState.MAINTENANCE: "in maintenance, by an operator",
}
_HELD = {state.value: state for state in BY_OPERATOR}
AS_RULED = ServerOverride()  # nothing is overridden
ServerOverrides = dict[tuple[str, str], ServerOverride]
"""By the backend's name, and the server as the rules write it; they need not exist now."""


class HealthRegistry:
    """The `BackendHealth` of each backend, which lasts as long as it has a pool, and the overrides of all, which stay.

    `tally` counts the waiting clients of a backend, with a limit: those of this process alone, unless it is set.
    """

    def __init__(self) -> None:
        self._backend_health: WeakValueDictionary[str, BackendHealth] = WeakValueDictionary()
        self._overrides: ServerOverrides = {}
        self._held: Mapping[str, float] = {}
        self.processes = 1
        self.on_waiting: Callable[[str, bool], object] = lambda _backend, _waiting: None
        counters: dict[str, SharedCounter] = defaultdict(SharedCounter)
        self.tally = lambda backend, limit: Tally(limit, counters[backend])

    def health_of(self, backend: str) -> BackendHealth:
        health = self._backend_health.get(backend)
        if health is None:
            overrides = {
                server: (override.held, override.weight)
                for (its_backend, server), override in self._overrides.items()
                if its_backend == backend
            }
            health = self._backend_health[backend] = BackendHealth(
                overrides,
                lambda waiting: self.on_waiting(backend, waiting),
                lambda limit: self.tally(backend, limit),
            )
            health.waiting.processes = self.processes
            health.waiting.hold_until(self._held.get(backend, 0.0))
        return health

    def get_health(self, backend: str) -> BackendHealth | None:
        return self._backend_health.get(backend)

    def expect(self, servers: Iterable[Mapping[str, Any]]) -> None:
        counts: dict[str, dict[str, int]] = {}
        for fields in servers:
            with suppress(KeyError, OverflowError, TypeError, ValueError):  # of another version
                count, server = int(fields["connections"]), fields["server"]
                of_backend = counts.setdefault(fields["backend"], {})
                of_backend[server] = of_backend.get(server, 0) + count
        for backend, backend_health in self._backend_health.items():
            backend_health.expect(counts.get(backend, {}))

    def share(self, processes: int) -> None:
        """Divide the release rate of held clients among this many processes."""
        if processes == self.processes:  # there may be thousands of backends
            return
        self.processes = processes
        for backend_health in self._backend_health.values():
            backend_health.waiting.processes = processes

    def hold(self, backends: Mapping[str, float]) -> None:
        """Let the clients of these backends wait until a time of the monotonic clock, and release those of all others."""
        before, self._held = self._held, backends
        for backend, backend_health in self._backend_health.items() if before or backends else ():
            backend_health.waiting.hold_until(backends.get(backend, 0.0))

    def is_held(self, backend: str) -> bool:
        backend_health = self._backend_health.get(backend)
        return backend_health is not None and backend_health.waiting.is_held

    def apply_overrides(self, overrides: ServerOverrides) -> None:
        before, self._overrides = self._overrides, overrides
        changes: dict[str, dict[str, tuple[MemberState | None, int | None]]] = {}
        for backend, server in {*before, *overrides}:
            override = overrides.get((backend, server), AS_RULED)
            if override != before.get((backend, server), AS_RULED):
                changes.setdefault(backend, {})[server] = override.held, override.weight
        for backend, its in changes.items():
            backend_health = self._backend_health.get(backend)
            if backend_health is not None:
                backend_health.override(its)
