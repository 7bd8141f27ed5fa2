"""Connections that are relayed go on in another process."""

from __future__ import annotations

import base64
import socket
from typing import Any, TypeAlias

import attrs

from txmux.observe.record import ConnectionRecord
from txmux.relay.interface import RelayState, SideState, Timeouts

Sockets: TypeAlias = tuple[socket.socket, socket.socket]
"""Those of the client and of the server."""


@attrs.frozen
class MovedConnection:
    """All that another process has to know of a connection, besides its two sockets.

    Attributes:
        record: What the access log is told at the end.
        age: Seconds since the client was accepted.
        logged: Whether the log is told.
        timeouts: When to give up; those of the rules that led the client.
        relay: How far its bytes have come.
    """

    record: ConnectionRecord
    age: float
    logged: bool
    timeouts: Timeouts
    relay: RelayState

    def as_json(self) -> dict[str, Any]:
        """Give it as values of JSON."""
        return attrs.asdict(self, value_serializer=_plain)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MovedConnection:
        """Read what `as_json` gave, in this version of txmux or in another.

        Fields that this version does not know are left out, and what the other did not know has its default.

        Raises:
            TypeError: A field is missing that has no default.
        """
        relay = values["relay"]
        sides = {
            name: _made(SideState, relay[name], held=base64.b64decode(relay[name]["held"]))
            for name in ("client", "server")
        }
        moved: MovedConnection = _made(
            cls,
            values,
            record=_made(ConnectionRecord, values["record"]),
            timeouts=_made(Timeouts, values["timeouts"]),
            relay=_made(RelayState, relay, **sides),
        )
        return moved


def _plain(_: type, __: Any, value: Any) -> Any:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _made(kind: type[Any], values: dict[str, Any], **read: Any) -> Any:
    known = {field.name for field in attrs.fields(kind)}
    return kind(**{name: values[name] for name in known & values.keys()} | read)
