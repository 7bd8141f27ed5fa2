"""What an operator wants of a server, whatever the rules and the checks say. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.backends.pool.server_health import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["AS_RULED", "ServerOverride", "ServerOverrides"]


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
