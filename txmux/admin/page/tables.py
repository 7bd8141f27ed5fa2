"""The tables of the page: servers, connections, and the rules with the hits of each route."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import attrs

from txmux.admin.page.map import Health, MapServer
from txmux.admin.page.query import PageQuery
from txmux.admin.page.unrecognised import ago
from txmux.telemetry.formatting import count, duration, server_state, size, slow_start, worst_first

_HEALTH: Mapping[str, Health] = {
    "up": "up", "not checked": "unchecked", "checking": "checking", "probing": "partly",
    "drain": "drain", "drained, and down": "drain", "maintenance": "drain", "disabled": "drain",
}  # fmt: skip
_ACTIONS = (("Ready", "ready"), ("Drain", "drain"), ("Maintenance", "maintenance"))

_STEERED = {"drain", "maintenance"}
_MOST_SHOWN = 5
_SECOND = 1000  # ms
MOST_ROWS = 50
"""Of a part; of more, the first `_FEWER_ROWS` are shown."""

_FEWER_ROWS = 25

_Found = TypeVar("_Found")
_Row = TypeVar("_Row")


@attrs.frozen
class Folded(Generic[_Row]):
    """The first rows of a part, their total, and whether the part gets a search field."""

    rows: Sequence[_Row]
    total: int
    is_searched: bool

    @property
    def more(self) -> int:
        return self.total - len(self.rows)


def rows_shown(total: int, query: PageQuery, part: str, most: int = MOST_ROWS) -> int:
    return total if total <= most or query["all"] == part else min(most, _FEWER_ROWS)


def connections_shown(total: int, query: PageQuery) -> int:
    # Only the sorted ones are all there; of others the next page is asked for.
    return rows_shown(total, query, "connections" if query["sort"] else "none")


def fold(
    items: Sequence[_Found],
    row_of: Callable[[_Found], _Row],
    text: Callable[[_Row], str],
    query: PageQuery,
    part: str,
    most: int = MOST_ROWS,
) -> Folded[_Row]:
    """Filter a part by its search text, and cut it unless all is requested; only rows that are shown are made."""
    if query[part]:
        items = [item for item in items if query.finds(part, text(row_of(item)))]
    shown = [*map(row_of, items[: rows_shown(len(items), query, part, most)])]
    return Folded(shown, len(items), bool(query[part]) or len(items) > most)


def _health_of_server(server: Mapping[str, Any]) -> Health:
    return _HEALTH.get(server_state(server), "down")


def backends_of_route(routes: Iterable[Mapping[str, Any]], name: str) -> set[str]:
    """Return the names of the backends of a route, or of those below it if it ends TLS."""
    return {
        str(route["backend"])
        for route in routes
        if route.get("backend") and name in {route["name"], *(route.get("under") or ())}
    }


def server_rows(
    backends: Sequence[Mapping[str, Any]],
    routes: Sequence[Mapping[str, Any]],
    query: PageQuery,
    now: float,
) -> Folded[dict[str, Any]]:
    """Return the servers that fit the filter, what is down or drained first."""
    of_route = backends_of_route(routes, query["route"]) if query["route"] else None
    held = {backend["name"] for backend in backends if backend.get("hold")}
    servers = [
        (backend, server)
        for backend, server in worst_first(backends)
        if query.fits(backend=backend, server=server["server"])
        and (of_route is None or backend in of_route)
    ]
    texts = ("backend", "name", "state", "why", "found")

    def text(row: dict[str, Any]) -> str:
        return " ".join(row[name] for name in texts)

    shown = fold(servers, lambda pair: _server_row(*pair, now), text, query, "servers")
    first = {row["backend"]: row for row in reversed(shown.rows)}
    for backend, row in first.items():  # one button is enough for all servers of a backend
        hold = "Release" if backend in held else "Hold"
        path = f"api/backends/{quote(backend, safe='')}/{hold.lower()}"
        row["actions"].append((f"{hold} {backend}", path, {}, f"{hold} clients of {backend}", ""))
    return shown


def _server_row(backend: str, server: Mapping[str, Any], now: float) -> dict[str, Any]:
    state, check = str(server["state"]), server.get("check") or {}
    checks = [bool(passed) for passed in check.get("history", ())]  # oldest first
    counts = {name: count(server.get(name, 0)) for name in ("active", "total", "failed")}
    path = f"api/backends/{quote(backend, safe='')}/servers/{quote(server['server'], safe='')}"
    steered = state if state in _STEERED else "ready"
    full = server.get("weight", 1)
    weight = slow_start(server) or (f"weight {count(full)}" if full != 1 else "")
    return {
        "backend": backend,
        "name": server["server"],
        "found": _resolved_addresses(server),
        "state": server_state(server),
        "health": _health_of_server(server),
        "why": str(server.get("why") or ""),
        "since": ago(now, server.get("since")),
        "weight": weight,
        **counts,
        "checks": checks,
        "checks_label": f"{sum(checks)} of the last {len(checks)} checks were good",
        "last_check": _last(check, str(server.get("why") or "")),
        "actions": [
            (label, path, {"state": to}, f"{label} {backend} {server['server']}", "")
            for label, to in _ACTIONS
            if to != steered
        ],
    }


def _resolved_addresses(server: Mapping[str, Any]) -> str:
    # The addresses of its name or service; nothing if it is an address itself.
    addresses = [str(address["address"]) for address in server.get("addresses", ())]
    if not addresses or addresses == [server["server"]]:
        return ""
    more = len(addresses) - _MOST_SHOWN
    return ", ".join(addresses[:_MOST_SHOWN]) + (f" and {count(more)} more" if more > 0 else "")


def _last(check: Mapping[str, Any], why: str) -> str:
    if not check or check.get("ok") is None:
        return ""
    took = check.get("duration_ms")
    result = str(check.get("result") or ("good" if check["ok"] else "bad"))
    # A good one has its colour, and the cause may be beside it already.
    is_known = took is not None and (check["ok"] or why.endswith(result))
    parts = [] if is_known else [result]
    return ", ".join(parts if took is None else [*parts, milliseconds(took)])


def map_servers(backends: Iterable[Mapping[str, Any]]) -> dict[str, list[MapServer]]:
    return {
        backend["name"]: [
            MapServer(
                server["server"],
                _health_of_server(server),
                f"{server.get('active', 0)} active" if server.get("active") else "",
            )
            for server in backend["servers"]
        ]
        for backend in backends
    }


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < _SECOND else duration(value / _SECOND)


_COLUMNS: Sequence[tuple[str, str, Callable[[Any], str] | None]] = (
    ("client", "client", None), ("listener", "listener", None), ("route", "route", None),
    ("server", "server", None), ("state", "state", None), ("age", "age_ms", milliseconds),
    ("idle", "idle_ms", milliseconds), ("in", "bytes_in", size), ("out", "bytes_out", size),
)  # fmt: skip
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
    """Return the connections in the requested order; of many, the first."""
    chosen = query["sort"].lstrip("-")
    listed = list(connections)
    numbers = {key: write is not None for _, key, write in _COLUMNS}
    if chosen in numbers:
        nothing: Any = 0 if numbers[chosen] else ""
        listed.sort(
            key=lambda connection: connection.get(chosen) or nothing,
            reverse=query["sort"].startswith("-"),
        )
    shown = listed[: connections_shown(len(listed), query)]
    return [_connection_row(connection, query) for connection in shown]


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
    rules: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]], query: PageQuery
) -> list[RulesFile]:
    """Return the files; with a filter or a search, only the sections that it is about."""
    hits = {f"route {route['name']}": route for route in routes}
    named = _sections_of(routes, query)
    is_whole = not (named or query["rules"])
    files = []
    for file in rules:
        keeps = {
            section["name"]
            for section in file.get("sections", ())
            if (not named or section["name"] in named)
            and query.finds("rules", section["name"], str(section.get("text", "")))
        }
        if is_whole or keeps:
            files.append(_file(file, hits, None if is_whole else keeps))
    is_short = sum(len(file.lines) for file in files) <= MOST_ROWS
    return [attrs.evolve(file, is_open=is_short or not is_whole) for file in files]


def _sections_of(routes: Sequence[Mapping[str, Any]], query: PageQuery) -> set[str]:
    kinds = {"listener": "listen", "route": "route", "backend": "backend"}
    named = {f"{word} {query[kind]}" for kind, word in kinds.items() if query[kind]}
    return named | {f"backend {backend}" for backend in backends_of_route(routes, query["route"])}


def _file(
    file: Mapping[str, Any], hits: Mapping[str, Mapping[str, Any]], keeps: Collection[str] | None
) -> RulesFile:
    begins = {section["line"]: section["name"] for section in file.get("sections", ())}
    lines, within = [], ""
    for number, text in enumerate(file["text"].splitlines(), 1):
        name = begins.get(number, "")
        within = name or within
        if keeps is None or within in keeps:
            lines.append(RulesLine(number, text, _hits(hits.get(name)), name.replace(" ", "-")))
    return RulesFile(file["file"], lines)


def _hits(route: Mapping[str, Any] | None) -> str:
    if route is None:
        return ""
    dry = route.get("dry_run_matches") or 0
    matches = count(route.get("matches") or 0)
    return f"{matches} (dry run: {count(dry)})" if dry else matches
