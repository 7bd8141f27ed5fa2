"""How the servers of a backend are, whichever rules that was found out under."""

from __future__ import annotations

import enum
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakValueDictionary

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


_MOST_RECALLED = 10_000
"""Servers; no process tells of more, unless names change and change."""


class State(enum.Enum):
    """Whether connections are led to a member."""

    UP = "up"
    DOWN = "down"
    """Its checks fail."""
    EJECTED = "ejected"
    """Connections to it failed, so it is left alone for a while."""
    PROBING = "probing"
    """After that while: one connection tries it."""
    DISABLED = "disabled"
    """The rules say ``down``."""
    DRAIN = "drain"
    """An operator wants no new connections there."""
    MAINTENANCE = "maintenance"
    """The same, and no checks either."""

    @property
    def is_out(self) -> bool:
        """Whether it is out of use, whatever is found out about it."""
        return self in {State.DISABLED, State.DRAIN, State.MAINTENANCE}

    @property
    def is_checked(self) -> bool:
        return self not in {State.DISABLED, State.MAINTENANCE}


@attrs.define(eq=False)
class ServerHealth:
    """What is known of one address of a server. Pools alone change it.

    Attributes:
        state: Whether connections are led to it, as far as the rules and operators allow that.
        held: The state that an operator wants; ``None`` if that is left to what is found out.
        weight: The weight that an operator wants; ``None`` is that of the rules.
        connections: Those that are established or being made.
        why: What led to the state.
        credit: What it is owed by the balancer.
        failed_at: When the last connections failed; no more of them than ejection counts.
        in_a_row: Connections that failed since the last one that stood.
        out_until: When an ejection is over.
        contrary: Checks in a row that say otherwise than the state.
        since: When the state was last changed; 0 if it never was.
        expected: Those of its connections that another process is about to hand over.
        unanswered: Flows of datagrams that it has not answered, since it last has answered one.
    """

    state: State = State.UP
    held: State | None = None
    weight: int | None = None
    connections: int = 0
    why: str = ""
    credit: int = 0
    failed_at: deque[float] = attrs.field(factory=deque)
    in_a_row: int = 0
    out_until: float = 0.0
    contrary: int = 0
    since: float = 0.0
    expected: int = 0
    unanswered: int = 0

    def as_json(self, now: float) -> dict[str, Any]:
        """Return what another process needs to go on with it, as values of JSON; of its connections only the number.

        Args:
            now: The time, in the seconds of the pools. Another process has other ones, so times are told as seconds from now.
        """
        # The connection that tries it belongs to this process; in the other one, another connection does.
        state = State.EJECTED if self.state is State.PROBING else self.state
        return {
            "state": state.value,
            "why": self.why,
            "age": max(0.0, now - self.since) if self.since else None,
            "credit": self.credit,
            "failed": [now - at for at in self.failed_at],
            "out": max(0.0, self.out_until - now),
            "contrary": self.contrary,
            "connections": self.connections,
        }

    def restore(self, fields: Mapping[str, Any], now: float) -> None:
        """Go on with what another process has told; what it did not tell stays as it is.

        Raises:
            TypeError: It tells something else.
            ValueError: It knows other states.
        """
        self.state = State(fields.get("state", self.state.value))
        self.why = str(fields.get("why", self.why))
        self.credit = int(fields.get("credit", self.credit))
        self.contrary = int(fields.get("contrary", self.contrary))
        self.failed_at = deque(now - float(age) for age in fields.get("failed", ()))
        self.out_until = now + float(fields.get("out", 0.0))
        age = fields.get("age")
        self.since = 0.0 if age is None else now - float(age)


class _Pool(Protocol):
    """What pools have to know of one another."""

    on_room: Callable[[], None] | None

    def rearrange(self) -> None:
        """Record that a server has changed its state."""

    def reorder(self, server: str, before: State | None) -> None:
        """Record that an operator wants something else of a server than this state."""


class BackendHealth:
    """What the pools of one backend have in common: the one of the rules that hold, and those of older rules.

    Connections keep the pool of the rules under which they were accepted. So a server is counted, ejected and let in
    again by all pools together.

    Args:
        orders: What an operator wants of each server, as the rules write it: a state, or ``None``, and a weight.

    Attributes:
        connections: Those of all servers that are established or being made.
    """

    def __init__(self, orders: Mapping[str, tuple[State | None, int | None]] | None = None) -> None:
        self._orders = dict(orders or {})
        self.connections = 0
        self._known: weakref.WeakValueDictionary[tuple[str, str], ServerHealth] = (
            weakref.WeakValueDictionary()
        )
        self._pools: list[weakref.ref[_Pool]] = []
        self._recalled: dict[tuple[str, str], ServerHealth] = {}
        self._owed: deque[Callable[[], None]] = deque()
        self._level = 0

    def of(self, key: tuple[str, str]) -> ServerHealth:
        """Return what is known of a server; that is kept as long as somebody has it.

        Args:
            key: The server as the rules write it, and its address.
        """
        health = self._known.get(key)
        if health is None:
            held, weight = self._orders.get(key[0], (None, None))
            health = self._known[key] = ServerHealth(held=held, weight=weight)
        return health

    def restore(self, key: tuple[str, str], fields: Mapping[str, Any], now: float) -> None:
        """Take in how another process has found a server, which may be known here only later: see `ServerHealth.restore`."""
        if key not in self._recalled and len(self._recalled) >= _MOST_RECALLED:
            return
        health = self._recalled[key] = self.of(key)
        health.restore(fields, now)

    def adopt(self, health: ServerHealth) -> None:
        """Count a connection that another process has made, and that may have been expected."""
        if health.expected:
            health.expected -= 1
        else:
            health.connections += 1
            self.connections += 1

    def expect(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count connections that another process is about to hand over; nobody gets their places until they have come.

        Args:
            counts: Of each server, by the keys of `of`; none of the others.
        """
        for key, health in self._known.items():
            more = counts.get(key, 0) - health.expected
            health.expected += more
            health.connections += more
            self.connections += more
        for known in self._pools:
            pool = known()
            if pool is not None and pool.on_room is not None:
                pool.on_room()

    def order(self, server: str, held: State | None, weight: int | None) -> None:
        """Override the state or weight of a server in all pools.

        Args:
            server: As the rules write it.
            held: See `ServerHealth`.
            weight: See there.
        """
        before, _ = self._orders.get(server, (None, None))
        self._orders[server] = held, weight
        for key, health in self._known.items():
            if key[0] == server:
                health.held, health.weight = held, weight
        for known in self._pools:
            pool = known()
            if pool is not None:
                pool.reorder(server, before)

    def owe(self, free: Callable[[], None]) -> None:
        """Promise to call something when there is a connection less than now, and nobody has taken its place."""
        if not self._owed:
            self._level = self.connections
        self._owed.append(free)

    def settle(self) -> None:
        """Serve what was promised, as far as connections have ended."""
        while self._owed and self.connections < self._level:
            self._level -= 1
            self._owed.popleft()()

    def join(self, pool: _Pool) -> None:
        """Report changes to a pool for as long as it is used."""
        self._pools.append(weakref.ref(pool, self._pools.remove))

    @property
    def is_shared(self) -> bool:
        return len(self._pools) > 1

    def others(self, pool: _Pool) -> list[_Pool]:
        """Return all pools but one."""
        found = (known() for known in self._pools)
        return [other for other in found if other is not None and other is not pool]


@attrs.frozen
class ServerOverride:
    """What is wanted of one server.

    Attributes:
        state: ``drain`` leads no new connections to it, but checks it; ``maintenance`` does not check it either.
        weight: In place of that in the rules; ``None`` is that.
        since: When the state was wanted, in seconds since 1970.
    """

    state: Literal["ready", "drain", "maintenance"] = "ready"
    weight: int | None = None
    since: float = 0.0

    @property
    def held(self) -> State | None:
        """The state that it has therefore; ``None`` is as its checks and connections find it."""
        return _STATES.get(self.state)


_STATES: Mapping[str, State] = {"drain": State.DRAIN, "maintenance": State.MAINTENANCE}

AS_RULED = ServerOverride()
"""Nothing is wanted but what the rules say."""

ServerOverrides = dict[tuple[str, str], ServerOverride]
"""By the name of the backend, and the server as the rules write it, whether there are such now or not."""


def as_json(orders: ServerOverrides) -> list[dict[str, Any]]:
    """Return orders as values of JSON."""
    return [
        {"backend": backend, "server": server, **attrs.asdict(order)}
        for (backend, server), order in orders.items()
    ]


def from_json(rows: Iterable[Mapping[str, Any]]) -> ServerOverrides:
    """Read what `as_json` gave, in this version of txmux or in another."""
    known = {field.name for field in attrs.fields(ServerOverride)}
    return {
        (one["backend"], one["server"]): ServerOverride(**{k: one[k] for k in known & one.keys()})
        for one in rows
    }


class HealthRegistry:
    """The `BackendHealth` of each backend, as long as somebody has them, and the orders for all, which are kept."""

    def __init__(self) -> None:
        self._backend_health: WeakValueDictionary[str, BackendHealth] = WeakValueDictionary()
        self._orders: ServerOverrides = {}

    def of(self, backend: str) -> BackendHealth:
        """Return what is known of a backend's servers, by its name."""
        found = self._backend_health.get(backend)
        if found is None:
            wanted = {
                server: (order.held, order.weight)
                for (of, server), order in self._orders.items()
                if of == backend
            }
            found = self._backend_health[backend] = BackendHealth(wanted)
        return found

    def get(self, backend: str) -> BackendHealth | None:
        """Return what is known of a backend's servers, if anybody has it."""
        return self._backend_health.get(backend)

    def expect(self, servers: Iterable[Mapping[str, Any]]) -> None:
        """Count the connections that another process is about to hand over; see `BackendHealth.expect`.

        Args:
            servers: As that process has told of them; without any, no more are expected.
        """
        counts: dict[str, dict[tuple[str, str], int]] = {}
        for told in servers:
            with suppress(KeyError, OverflowError, TypeError, ValueError):  # of another version
                key = told["server"], told["target"]
                counts.setdefault(told["backend"], {})[key] = int(told["connections"])
        for backend, backend_health in self._backend_health.items():
            backend_health.expect(counts.get(backend, {}))

    def apply_overrides(self, orders: ServerOverrides) -> None:
        """Apply an operator's overrides of servers, and reset the servers that have none.

        Args:
            orders: All there are.
        """
        before, self._orders = self._orders, orders
        for backend, server in {*before, *orders}:
            order = orders.get((backend, server), AS_RULED)
            backend_health = self._backend_health.get(backend)
            if backend_health is not None and order != before.get((backend, server), AS_RULED):
                backend_health.order(server, order.held, order.weight)
