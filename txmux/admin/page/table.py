"""The table of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.telemetry.present import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.admin.page.query import PageQuery

PER_PAGE = 100

_COLUMNS = (
    ("client", "client", False),
    ("listener", "listener", False),
    ("route", "route", False),
    ("server", "server", False),
    ("state", "state", False),
    ("age", "age_ms", True),
    ("idle", "idle_ms", True),
    ("in", "bytes_in", True),
    ("out", "bytes_out", True),
)


@attrs.frozen
class Column:
    """A column: its name, whether it has numbers, a link that sorts by it, and how it is sorted now."""

    name: str
    number: bool
    link: str
    sorted: str


@attrs.frozen
class Row:
    """A connection, as text."""

    id: str
    link: str
    client: str
    listener: str
    route: str
    server: str
    state: str
    age: str
    idle: str
    bytes_in: str
    bytes_out: str


def columns_of(query: PageQuery) -> list[Column]:
    """Return the columns. A second click on one turns its order around."""
    return [_column(name, key, number, query) for name, key, number in _COLUMNS]


def _column(name: str, key: str, number: bool, query: PageQuery) -> Column:  # noqa: FBT001 - of the table above
    chosen = query["sort"]
    now = {key: "ascending", f"-{key}": "descending"}.get(chosen, "")
    first, other = (f"-{key}", key) if number else (key, f"-{key}")
    return Column(name, number, query.link(sort=other if chosen == first else first, after=""), now)


def rows_of(connections: Iterable[Mapping[str, Any]], query: PageQuery) -> list[Row]:
    """Return the connections in the order that is asked for, at most `PER_PAGE`."""
    chosen = query["sort"].lstrip("-")
    listed = list(connections)
    keys = {key: number for _, key, number in _COLUMNS}
    if chosen in keys:
        is_number = keys[chosen]

        def value(connection: Mapping[str, Any]) -> Any:
            found = connection.get(chosen)
            return (found or 0) if is_number else str(found or "")

        listed.sort(key=value, reverse=query["sort"].startswith("-"))
    return [_row(connection, query) for connection in listed[:PER_PAGE]]


def _row(connection: Mapping[str, Any], query: PageQuery) -> Row:
    def text(name: str) -> str:
        return str(connection.get(name) or "-")

    return Row(
        text("id"),
        query.link(connection=text("id")),
        text("client"),
        text("listener"),
        text("route"),
        text("server"),
        text("state"),
        duration(float(connection.get("age_ms") or 0) / 1000),
        duration(float(connection.get("idle_ms") or 0) / 1000),
        size(connection.get("bytes_in") or 0),
        size(connection.get("bytes_out") or 0),
    )
