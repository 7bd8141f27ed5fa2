"""Filters of connections: read from a query, and matched with records. Pure."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.rules.model import IPNetwork
from txmux.rules.problems import InvalidValueError, suggestion
from txmux.rules.reading.values import network, positive_duration
from txmux.telemetry.documents import STATES
from txmux.telemetry.record import ConnectionRecord, ConnectionState

NONE = "-"
"""Stands for a missing value, as in the access log: ``route=-`` matches connections that no route took."""

MOST_ROWS = 10_000
_ID = re.compile(r"[0-9a-f]{1,32}-[0-9a-f]{1,32}")


class FilterError(MuxError):
    """A filter cannot be read; the message begins with its name."""


@frozen
class Filters:
    """A filter of connections, which have to match all of these; ``None`` matches all, and `NONE` a missing value.

    Attributes:
        server: The server's address, as in the access log.
        older: The least age of the connection in seconds.
    """

    listener: str | None = None
    route: str | None = None
    backend: str | None = None
    server: str | None = None
    client: IPNetwork | Literal["unix"] | None = None
    state: ConnectionState | None = None
    older: float | None = None
    _inside: Callable[[str], bool] | None = attrs.field(init=False, repr=False, eq=False)

    @_inside.default
    def _prepare(self) -> Callable[[str], bool] | None:
        return None if self.client is None else _membership(self.client)

    @classmethod
    def read(cls, words: Mapping[str, str]) -> Filters:
        """Read filters from a query; `FilterError` names the one that is not known or cannot be read."""
        values: dict[str, Any] = {}
        for name, text in words.items():
            if name not in _READERS:
                hint = suggestion(name, _READERS)
                raise FilterError(f"{name}: there is no such filter{hint}")
            try:
                values[name] = _READERS[name](text)
            except InvalidValueError as problem:
                raise FilterError(f"{name}: {problem}") from None
        return cls(**values)

    def words(self) -> dict[str, str]:
        """Return them in the form that `read` takes."""
        texts = {
            name: str(getattr(self, name))
            for name in _READERS
            if getattr(self, name) is not None and name != "older"
        }
        if self.older is not None:
            texts["older"] = f"{self.older:f}s"
        return texts

    def fit(self, record: ConnectionRecord, state: ConnectionState, age: float) -> bool:
        """`age` is in seconds since the client was accepted."""
        return (
            (self.state is None or state == self.state)
            and (self.older is None or age >= self.older)
            and self._fit(
                record.listener, record.route, record.backend, record.server, record.client
            )
        )

    def fit_end(self, end: Mapping[str, Any]) -> bool:
        return self._fit(*(end.get(name) for name in _OF_ENDS))

    def _fit(self, listener: Any, route: Any, backend: Any, server: Any, client: Any) -> bool:
        return (
            (self.listener is None or listener == self.listener)
            and (self.route is None or (route or NONE) == self.route)
            and (self.backend is None or (backend or NONE) == self.backend)
            and (self.server is None or (server or NONE) == self.server)
            and (self._inside is None or self._inside(client or ""))
        )


_OF_ENDS = "listener", "route", "backend", "server", "client"
EVERY = Filters()  # matches every connection


@frozen
class Page:
    """A part of a list, after the ID of a connection, even if that has ended."""

    limit: int = 1000
    after: str = ""

    @classmethod
    def read(cls, words: Mapping[str, str]) -> Page:
        """Read ``limit`` and ``after``, either of which may be missing."""
        limit, after = read_limit(words, 1000, MOST_ROWS), words.get("after", "")
        if after and not is_identity(after):
            raise FilterError(f"after: {after!r} is not the ID of a connection")
        return cls(limit, after)


def read_limit(words: Mapping[str, str], default: int, most: int) -> int:
    text = words.get("limit", str(default))
    if not text.isdecimal() or not text.isascii() or len(text) > 6 or not 1 <= int(text) <= most:
        raise FilterError(f"limit: must be a whole number from 1 to {most}, not {text!r}")
    return int(text)


def is_identity(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def connection_sort_key(identity: str) -> tuple[str, int, str]:
    """Order connections by the process that accepted them, and then as they were accepted."""
    process, _, number = identity.partition("-")
    return process, len(number), number


def _any_text(text: str) -> str:
    if not text:
        raise InvalidValueError(f"is empty; write {NONE!r} for connections that have none")
    return text


def _state(text: str) -> ConnectionState:
    if text not in STATES:
        raise InvalidValueError(f"{text!r} is not a state{suggestion(text, STATES)}")
    return text


def _client(text: str) -> IPNetwork | Literal["unix"]:
    return "unix" if text == "unix" else network(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "listener": _any_text,
    "route": _any_text,
    "backend": _any_text,
    "server": _any_text,
    "client": _client,
    "state": _state,
    "older": positive_duration,
}
FILTERS = tuple(_READERS)


def _membership(network: IPNetwork | Literal["unix"]) -> Callable[[str], bool]:
    """Return a test of clients, given their address and port as in the access log."""
    if network == "unix":
        return lambda client: client.startswith("unix")
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    first, mask = int(network.network_address), int(network.netmask)

    def is_member(client: str) -> bool:
        host = client.rpartition(":")[0].strip("[]").partition("%")[0]
        try:
            # Much faster than `ipaddress`, for lists of thousands.
            return int.from_bytes(socket.inet_pton(family, host), "big") & mask == first
        except OSError:  # it is of the other family
            return False

    return is_member
