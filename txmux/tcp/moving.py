"""The state of a connection that moves to another process, and its form in a message."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, TypeAlias

import attrs

from txmux.classes import frozen
from txmux.net.relay.interface import RelayState, SideState, Timeouts
from txmux.rules.model import Logged
from txmux.telemetry.record import FACTS, ConnectionRecord
from txmux.wire import codec

_LONGEST = 60.0
"""Seconds that a connection may be on its way; more would mean that the clock was set."""

Sockets: TypeAlias = tuple[socket.socket, ...]
"""The sockets of the client and, unless it waits for one, of the server."""

StayReason = Literal[
    "undecided", "being connected", "waiting for a server", "TLS ends here", "TLS to the server",
    "own protocol", "UDP", "ending", "error", "refused", "not taken",
]  # fmt: skip
"""Why a connection stays in a process that hands connections over. The last three could have moved."""

COULD_MOVE = frozenset[StayReason](("error", "refused", "not taken"))
MAY_MOVE_LATER = frozenset[StayReason](("undecided", "being connected", "not taken"))
"""Reasons of connections that are offered again: once they have a server, or another process has room for them."""
STAY_LONGER = frozenset[StayReason](("waiting for a server", "not taken"))
"""Reasons of connections that are not ended after ``drain_timeout``."""

DESCRIPTORS_EACH = 2
"""Descriptors of a connection: the sockets of client and server. Pipes are taken only where there are more than enough."""

SlotRelease: TypeAlias = "Callable[[Callable[[], None]], None]"
"""Releases the slot that a connection still has in the pool of a process that it has left. Calls its argument when
no connection has the slot there."""


@frozen
class MovedConnection:
    """All that another process needs of a connection, besides its sockets.

    Of a client that waits for a server, what it has sent is held for that one.
    """

    record: ConnectionRecord
    age: float  # seconds since the client was accepted
    logged: Logged
    timeouts: Timeouts  # when to give up; those of the rules that routed the client
    relay: RelayState  # how far its bytes have come
    version: int = 0  # that of the rules by which the client was accepted; 0 if that is not known
    at: float | None = None  # the time of this state, by the clock that both processes have
    waited: float | None = None  # seconds, for a server; ``None`` if it has one
    decided: Mapping[str, str] = attrs.field(factory=dict)  # of a client that waits; see `Client`
    is_answered: bool | None = None  # by its server; ``None`` if that is not known
    is_asked: bool | None = None  # whether that has something of the client; ``None`` as above


def accepted_at(age: float, at: float | None, now: float) -> float:
    """Return when a client was accepted that had this age at a time of another process, whose clock is the same."""
    passed = 0.0 if at is None else now - at
    return now - age - (passed if 0 <= passed <= _LONGEST else 0.0)


_PARTS: dict[str, type[Any]] = {
    "record": ConnectionRecord,
    "timeouts": Timeouts,
    "relay.client": SideState,
    "relay.server": SideState,
    "relay": RelayState,
    "": MovedConnection,
}
"""The classes that a connection consists of; a part comes before the whole that it is part of."""


_NAMES = [
    name
    for part, kind in _PARTS.items()
    for field in attrs.fields(kind)
    if (name := f"{part}.{field.name}".lstrip(".")) not in _PARTS
]
_row: Any = attrgetter(*_NAMES)
_BYTES = [number for number, name in enumerate(_NAMES) if name.endswith(".held")]


def packed(connections: Iterable[MovedConnection]) -> dict[str, Any]:
    """Return the names of the columns once, and a row of JSON values for each connection: with thousands, little is repeated."""
    rows = []
    for connection in connections:
        row = [*_row(connection)]
        for number in _BYTES:
            row[number] = base64.b64encode(row[number]).decode("ascii") if row[number] else ""
        rows.append(row)
    return {"names": _NAMES, "rows": rows}


class Unpacking:
    """Reads the rows of `packed`: columns that this version does not know are left out, and missing ones have their defaults."""

    def __init__(self, names: Sequence[str]) -> None:
        self._parts: list[tuple[str, type[Any], list[tuple[str, int]]]] = []
        found = {name: number for number, name in enumerate(names)}
        for part, kind in _PARTS.items():
            paths = {field.name: f"{part}.{field.name}".lstrip(".") for field in attrs.fields(kind)}
            columns = [(name, found[path]) for name, path in paths.items() if path in found]
            self._parts.append((part, kind, columns))
        self._bytes = [number for name, number in found.items() if name.endswith(".held")]

    def read(self, row: list[Any]) -> MovedConnection:
        """Read a row; raises `LookupError`, `TypeError` or `ValueError` if it has too few columns, or other values than these."""
        for number in self._bytes:
            row[number] = base64.b64decode(row[number]) if row[number] else b""
        made: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for part, kind, columns in self._parts:
            values = {name: row[number] for name, number in columns} | made[part]
            one = codec.read(kind, values) if part == "record" else kind(**values)
            whole, _, name = part.rpartition(".")
            made[whole][name] = one  # that of the whole is not asked for
        moved: MovedConnection = one
        FACTS.read(moved.decided, codec.ALONE)
        return moved
