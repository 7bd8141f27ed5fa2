"""The tables of the page: servers, connections, and the rules with the hits of each route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from txmux.admin.page.map import Health, MapServer
from txmux.admin.page.unrecognised import ago
from txmux.telemetry.formatting import count, duration, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from txmux.admin.page.query import PageQuery

_HEALTH: Mapping[str, Health] = {
    "up": "up",
    "ready": "up",
    "drain": "drain",
    "maintenance": "drain",
    "down": "down",
    "ejected": "down",
}
_ACTIONS = (("Ready", "ready"), ("Drain", "drain"), ("Maintenance", "maintenance"))

_STEERED = {"drain", "maintenance"}
_MOST_SHOWN = 5
PER_PAGE = 100
_SHORT_RULES = 200  # lines


def health_of_state(state: str) -> Health:
    return _HEALTH.get(state, "down")


def server_rows(
    backends: Sequence[Mapping[str, Any]], query: PageQuery, now: float
) -> list[dict[str, Any]]:
    return [
        _server_row(backend["name"], server, now)
        for backend in backends
        for server in backend["servers"]
        if query.fits(backend=backend["name"], server=server["server"])
    ]


def _server_row(backend: str, server: Mapping[str, Any], now: float) -> dict[str, Any]:
    state, check = str(server["state"]), server.get("check") or {}
    checks = [bool(one) for one in check.get("history", ())]  # oldest first
    counts = {name: count(server.get(name, 0)) for name in ("active", "total", "failed")}
    steered = state if state in _STEERED else "ready"
    return {
        "backend": backend,
        "name": server["server"],
        "found": _resolved_addresses(server),
        "state": state,
        "health": health_of_state(state),
        "why": str(server.get("why") or ""),
        "since": ago(now, server.get("since")),
        "weight": count(server.get("weight", 1)),
        **counts,
        "checks": checks,
        "checks_label": f"{sum(checks)} of the last {len(checks)} checks were good",
        "last_check": _last(check),
        "path": f"api/backends/{quote(backend, safe='')}/servers/{quote(server['server'], safe='')}",
        "actions": [(label, to) for label, to in _ACTIONS if to != steered],
    }


def _resolved_addresses(server: Mapping[str, Any]) -> str:
    # The addresses of its name or service; nothing if it is an address itself.
    found = [str(one["address"]) for one in server.get("addresses", ())]
    if not found or found == [server["server"]]:
        return ""
    more = len(found) - _MOST_SHOWN
    return ", ".join(found[:_MOST_SHOWN]) + (f" and {count(more)} more" if more > 0 else "")


def _last(check: Mapping[str, Any]) -> str:
    if not check or check.get("ok") is None:
        return ""
    took = check.get("duration_ms")
    result = str(check.get("result") or ("good" if check["ok"] else "bad"))
    return f"{result}, {took:.0f} ms" if took is not None else result


def map_servers(backends: Iterable[Mapping[str, Any]]) -> dict[str, list[MapServer]]:
    return {
        backend["name"]: [
            MapServer(
                server["server"],
                health_of_state(str(server["state"])),
                f"{server.get('active', 0)} active" if server.get("active") else "",
            )
            for server in backend["servers"]
        ]
        for backend in backends
    }


def _milliseconds(value: float) -> str:
    return duration(value / 1000)


_COLUMNS: Sequence[tuple[str, str, Callable[[Any], str] | None]] = (
    ("client", "client", None),
    ("listener", "listener", None),
    ("route", "route", None),
    ("server", "server", None),
    ("state", "state", None),
    ("age", "age_ms", _milliseconds),
    ("idle", "idle_ms", _milliseconds),
    ("in", "bytes_in", size),
    ("out", "bytes_out", size),
)
"""Of the connections: the title, the field of the API, and what writes it if it is a number."""


@attrs.frozen
class PageColumn:
    """A column: its name, whether it has numbers, a link that sorts by it, and how it is sorted now."""

    name: str
    number: bool
    link: str
    sorted: str


@attrs.frozen
class ConnectionRow:
    """A connection: its ID, a link that chooses it, and its cells as text."""

    id: str
    link: str
    cells: Sequence[str]


def columns_of(query: PageQuery) -> list[PageColumn]:
    """Return the columns of the connections. A second click on one turns its order around."""
    chosen, columns = query["sort"], []
    for name, key, write in _COLUMNS:
        now = {key: "ascending", f"-{key}": "descending"}.get(chosen, "")
        first, other = (f"-{key}", key) if write else (key, f"-{key}")
        link = query.link(sort=other if chosen == first else first, after="")
        columns.append(PageColumn(name, write is not None, link, now))
    return columns


def rows_of(connections: Iterable[Mapping[str, Any]], query: PageQuery) -> list[ConnectionRow]:
    """Return the connections in the requested order, at most `PER_PAGE`."""
    chosen = query["sort"].lstrip("-")
    listed = list(connections)
    numbers = {key: write is not None for _, key, write in _COLUMNS}
    if chosen in numbers:
        nothing: Any = 0 if numbers[chosen] else ""
        listed.sort(
            key=lambda one: one.get(chosen) or nothing, reverse=query["sort"].startswith("-")
        )
    return [_connection_row(connection, query) for connection in listed[:PER_PAGE]]


def _connection_row(connection: Mapping[str, Any], query: PageQuery) -> ConnectionRow:
    identity = str(connection.get("id") or "-")
    cells = [
        write(connection.get(key) or 0) if write else str(connection.get(key) or "-")
        for _, key, write in _COLUMNS
    ]
    return ConnectionRow(identity, query.link(connection=identity), cells)


@attrs.frozen
class RulesLine:
    """A line of a rules file: its number, its text, the hits of the route that begins there, and an anchor for that section."""

    number: int
    text: str
    hits: str = ""
    section: str = ""


@attrs.frozen
class RulesFile:
    """A rules file, and whether it is shown before a click opens it."""

    path: str
    lines: Sequence[RulesLine]
    is_open: bool = False


def files_of(
    rules: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]]
) -> list[RulesFile]:
    hits = {f"route {route['name']}": route for route in routes}
    files = [_file(file, hits) for file in rules]
    is_short = sum(len(file.lines) for file in files) <= _SHORT_RULES
    return [attrs.evolve(file, is_open=is_short) for file in files]


def _file(file: Mapping[str, Any], hits: Mapping[str, Mapping[str, Any]]) -> RulesFile:
    begins = {section["line"]: section["name"] for section in file.get("sections", ())}
    lines = []
    for number, text in enumerate(file["text"].splitlines(), 1):
        name = begins.get(number, "")
        lines.append(RulesLine(number, text, _hits(hits.get(name)), name.replace(" ", "-")))
    return RulesFile(file["file"], lines)


def _hits(route: Mapping[str, Any] | None) -> str:
    if route is None:
        return ""
    dry = route.get("dry_run_matches") or 0
    matches = count(route.get("matches") or 0)
    return f"{matches} (dry run: {count(dry)})" if dry else matches
