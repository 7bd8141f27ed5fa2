"""What an operator overrides of the rules while the service runs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.backends.pool.overrides import AS_RULED, ServerOverrides, as_json, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Overrides", "ServerState"]

ServerState = Literal["ready", "drain", "maintenance"]


@attrs.frozen
class Overrides:
    """All of it. It goes on over reloads, upgrades, and ends of workers.

    Attributes:
        servers: See `txmux.backends.pool.overrides`.
        shut: Names of listeners whose clients are left in the queues of their sockets.
    """

    servers: ServerOverrides = attrs.field(factory=ServerOverrides)
    shut: frozenset[str] = frozenset()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Overrides:
        """Read what `as_json` gave, in this version of txmux or in another."""
        return cls(from_json(values.get("servers", ())), frozenset(values.get("shut", ())))

    def as_json(self) -> dict[str, Any]:
        return {"servers": as_json(self.servers), "shut": sorted(self.shut)}

    def with_server(
        self,
        backend: str,
        server: str,
        now: float,
        state: ServerState | None,
        weight: int | None,
    ) -> Overrides:
        """Want something else of a server.

        Args:
            backend: The backend's name.
            server: As the rules write it.
            now: The time, in seconds since 1970.
            state: What it is to be; ``None`` leaves that as it is.
            weight: What it is to have; 0 is that of the rules, ``None`` leaves it as it is.
        """
        order = self.servers.get((backend, server), AS_RULED)
        if state is not None and state != order.state:
            order = attrs.evolve(order, state=state, since=now)
        if weight is not None:
            order = attrs.evolve(order, weight=weight or None)
        servers = {**self.servers, (backend, server): order}
        if order.state == "ready" and order.weight is None:
            del servers[backend, server]
        return attrs.evolve(self, servers=servers)

    def with_listener(self, name: str, *, accepting: bool) -> Overrides:
        """Want the clients of a listener to be accepted, or not."""
        return attrs.evolve(self, shut=self.shut - {name} if accepting else self.shut | {name})
