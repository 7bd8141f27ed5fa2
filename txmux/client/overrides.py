"""The operator's overrides of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from txmux.backends.pool.server_health import AS_RULED, ServerOverride, ServerOverrides
from txmux.classes import frozen
from txmux.wire import codec
from txmux.wire.codec import UNTIL, JsonForm, Origin, by_name, converted, sent

ServerState = Literal["ready", "drain", "maintenance"]


_BY_SERVER = JsonForm(
    lambda servers, its: [
        {"backend": backend, "server": server, **codec.write(override, its)}
        for (backend, server), override in servers.items()
    ],
    lambda rows, its: {
        (row["backend"], row["server"]): codec.read(ServerOverride, row, its) for row in rows
    },
)


@frozen
class Overrides:
    """All overrides. They outlast reloads, upgrades and workers.

    Attributes:
        shut: Listeners that do not accept.
        held: Backends whose clients wait, and until when, by the monotonic clock; infinite means until released.
    """

    servers: ServerOverrides = sent(_BY_SERVER, factory=dict)
    shut: frozenset[str] = sent(converted(frozenset, sorted), default=frozenset())
    held: Mapping[str, float] = sent(by_name(UNTIL), factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any], now: float = 0.0) -> Overrides:
        return codec.read(cls, values, Origin(now))

    def as_json(self, now: float = 0.0) -> dict[str, Any]:
        """Return values of JSON; for another service than this one, holds have the seconds that are left `now`."""
        return codec.write(self, Origin(now))

    def with_server(
        self, backend: str, server: str, now: float, state: ServerState | None, weight: int | None
    ) -> Overrides:
        """Override the state and weight of a server where they are not ``None``; weight 0 restores that of the rules."""
        override = self.servers.get((backend, server), AS_RULED)
        if state is not None and state != override.state:
            override = attrs.evolve(override, state=state, since=now)
        if weight is not None:
            override = attrs.evolve(override, weight=weight or None)
        servers = {**self.servers, (backend, server): override}
        if override.state == "ready" and override.weight is None:
            del servers[backend, server]
        return attrs.evolve(self, servers=servers)

    def with_listener(self, name: str, *, accepting: bool) -> Overrides:
        return attrs.evolve(self, shut=self.shut - {name} if accepting else self.shut | {name})

    def with_hold(self, backend: str, now: float, until: float) -> Overrides:
        """Let the clients of a backend wait until a time; a time that has passed releases them."""
        held = {name: end for name, end in self.held.items() if name != backend}
        return attrs.evolve(self, held={**held, backend: until} if until > now else held)
