"""The tables of the page, and the rules with the hits of each route."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import attrs

from txmux.admin.page.map import Health, MapServer, flow_text, health_of, how_many
from txmux.admin.page.query import PageQuery
from txmux.admin.page.unrecognised import ago, host_of
from txmux.telemetry.formatting import (
    count,
    counted,
    duration,
    rate,
    server_state,
    size,
    slow_start,
    worst_first,
)

_HEALTH: Mapping[str, Health] = {
    "up": "up", "not checked": "unchecked", "checking": "checking", "probing": "partly",
    "drain": "drain", "drained, and down": "drain", "maintenance": "drain", "disabled": "drain",
}  # fmt: skip
_STATES = (("Ready", "ready"), ("Drain", "drain"), ("Maintenance", "maintenance"))
_STEERED = {"drain", "maintenance"}
_BANS: Sequence[tuple[str, Mapping[str, int]]] = (
    ("Ban for an hour", {"seconds": 3600}),
    ("Ban until lifted", {}),
)
_MOST_SHOWN = 5
_SECOND = 1000  # ms
MOST_ROWS = 50
"""Of a part; of more, the first `_FEWER_ROWS` are shown."""

_FEWER_ROWS = 25

_Found = TypeVar("_Found")
_Row = TypeVar("_Row")


class Action(NamedTuple):
    """An entry of a menu: what is posted where, after a question if there is one; with a `field`, the answer is a number for it."""

    label: str
    path: str
    body: Mapping[str, object] = {}
    question: str = ""
    field: str = ""


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


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < _SECOND else duration(value / _SECOND)


Column: TypeAlias = "tuple[str, str, Callable[[Any], str] | None]"
"""The title, the field of the API, and what writes it if it is no text."""

_NUMBERS: Collection[object] = (count, rate, size, milliseconds)


@attrs.frozen
class PageColumn:
    """A column: its name, whether it has numbers, a link that sorts by it, and how it is sorted now."""

    name: str
    number: bool
    link: str = ""
    sorted: str = ""


@attrs.frozen
class TableRow:
    """A row: its cells as text, a link of the first one, its actions, and the colour of a cell *state*."""

    cells: Sequence[str]
    link: str = ""
    menu: Sequence[Action] = ()
    health: str = ""


@attrs.frozen
class Table:
    """A table, of which some rows may be folded."""

    columns: Sequence[PageColumn]
    body: Folded[TableRow]


def table(
    part: str,
    columns: Sequence[Column],
    items: Sequence[Mapping[str, Any]],
    query: PageQuery,
    *,
    more: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {},
    most: int = MOST_ROWS,
) -> Table:
    """Make a table of documents; `more` returns what a row has beside its cells."""
    shown = fold(
        items,
        lambda item: TableRow(cells_of(columns, item), **more(item)),
        lambda row: " ".join(row.cells),
        query,
        part,
        most,
    )
    return Table([PageColumn(title, write in _NUMBERS) for title, _, write in columns], shown)


def cells_of(columns: Iterable[Column], item: Mapping[str, Any]) -> list[str]:
    values = ((item.get(key), write) for _, key, write in columns)
    return [
        "-" if value is None or value == "" else str(value) if write is None else write(value)
        for value, write in values
    ]


def _path(*parts: str) -> str:
    return "/".join(["api", *(quote(part, safe="") for part in parts)])


def client_menu(source: str) -> list[Action]:
    end = Action(
        "End its connections",
        "api/connections/close",
        {"client": source},
        f"End all connections of {source}?",
    )
    return [end, *ban_menu(source)]


def ban_menu(source: str) -> list[Action]:
    return [
        Action(label, "api/bans", {"network": source, **how}, f"{label}: {source}?")
        for label, how in (_BANS if source else ())
    ]


def listener_menu(name: str, *, is_paused: bool) -> list[Action]:
    label, question = ("Resume", "") if is_paused else ("Pause", f"Accept no clients of {name}?")
    return [Action(label, _path("listeners", name), {"accepting": is_paused}, question)]


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
    """Return the servers that fit the filter by backend; in each, and of all backends, those down or drained come first."""
    of_route = backends_of_route(routes, query["route"]) if query["route"] else None
    ordered = worst_first(backends)
    place = {backend: at for at, (backend, _) in reversed([*enumerate(ordered)])}
    servers = [
        (backend, server)
        for backend, server in sorted(ordered, key=lambda pair: place[pair[0]])
        if query.fits(backend=backend, server=server["server"])
        and (of_route is None or backend in of_route)
    ]
    texts = ("backend", "name", "state", "why", "found")

    def text(row: dict[str, Any]) -> str:
        return " ".join(row[name] for name in texts)

    return fold(servers, lambda pair: _server_row(*pair, now), text, query, "servers")


SERVER_COLUMNS: Sequence[Column] = (
    ("active", "active", count), ("new", "rate", rate), ("in", "bytes_in", size),
    ("out", "bytes_out", size), ("first byte", "first_byte_ms", milliseconds),
)  # fmt: skip


def _server_row(backend: str, server: Mapping[str, Any], now: float) -> dict[str, Any]:
    state, check = str(server["state"]), server.get("check") or {}
    checks = [bool(passed) for passed in check.get("history", ())]  # oldest first
    why, last = str(server.get("why") or ""), server.get("last_failure") or {}
    cause = str(last.get("cause", ""))
    return {
        "backend": backend,
        "name": server["server"],
        "found": _resolved_addresses(server),
        "state": server_state(server),
        "health": _health_of_server(server),
        "why": why,
        "since": ago(now, server.get("since")),
        "weight": slow_start(server) or _weight(server),
        "cells": cells_of(SERVER_COLUMNS, server),
        "failed": _share(server.get("failed", 0), server.get("total", 0)),
        "last_failure": "" if cause in why else f"{cause}, {ago(now, last.get('time'))}",
        "checks": checks,
        "checks_label": f"{sum(checks)} of the last {len(checks)} checks were good",
        "last_check": _last(check, why),
        "menu": _server_menu(backend, str(server["server"]), state),
    }


def _share(part: int, whole: int) -> str:
    return f"{count(part)} of {count(whole)}" if part else "0"


def _weight(server: Mapping[str, Any]) -> str:
    full = server.get("weight", 1)
    return f"weight {count(full)}" if full != 1 else ""


def _server_menu(backend: str, server: str, state: str) -> list[Action]:
    path = _path("backends", backend, "servers", server)
    steered = state if state in _STEERED else "ready"
    weight = f"Weight of {server}, from 1 to 65535"
    return [
        *(Action(label, path, {"state": to}) for label, to in _STATES if to != steered),
        Action("Set its weight", path, question=weight, field="weight"),
        Action(
            "End its connections",
            path,
            {"close_connections": True},
            f"End all connections to {server}?",
        ),
    ]


@attrs.frozen
class BackendGroup:
    """A backend and those of its servers that are shown; `menu` is for all of them."""

    name: str
    health: Health
    summary: str
    cells: Sequence[str]
    menu: Sequence[Action]
    servers: Sequence[Mapping[str, Any]]
    is_single: bool
    note: str


def by_backend(
    rows: Iterable[Mapping[str, Any]], backends: Iterable[Mapping[str, Any]]
) -> list[BackendGroup]:
    known = {backend["name"]: backend for backend in backends}
    groups = groupby(rows, key=lambda row: row["backend"])
    return [_backend_group(known[name], [*of_backend]) for name, of_backend in groups]


def _backend_group(backend: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> BackendGroup:
    servers, name, hold = backend["servers"], str(backend["name"]), backend.get("hold")
    shown = map_servers([backend])[name]
    waiting = f"{counted(backend['held'], 'client')} waiting" if backend.get("held") else ""
    note = ", ".join(filter(None, ["held" if hold else "", waiting]))
    sums = {
        key: sum(server.get(key) or 0 for server in servers) if key in servers[0] else None
        for _, key, write in SERVER_COLUMNS
        if write is not milliseconds and servers
    }
    hold_action = ("Release its clients", "release") if hold else ("Hold new clients", "hold")
    several = _STATES if len(servers) > 1 else ()
    menu = [
        *(Action(f"{label}: all", _path("backends", name), {"state": to}) for label, to in several),
        Action(hold_action[0], _path("backends", name, hold_action[1])),
    ]
    states = how_many([server.health for server in shown])
    summary = f"{states}, {note}" if note else states
    cells, is_single = cells_of(SERVER_COLUMNS, sums), len(servers) == 1
    return BackendGroup(name, health_of(shown), summary, cells, menu, rows, is_single, note)


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
                flow_text(
                    server.get("active") or 0, rate(server["rate"]) if server.get("rate") else ""
                ),
            )
            for server in backend["servers"]
        ]
        for backend in backends
    }


_COLUMNS: Sequence[Column] = (
    ("client", "client", None), ("listener", "listener", None), ("route", "route", None),
    ("server", "server", None), ("state", "state", None), ("age", "age_ms", milliseconds),
    ("idle", "idle_ms", milliseconds), ("in", "bytes_in", size), ("out", "bytes_out", size),
)  # fmt: skip
"""Of the connections."""


def connections_table(connections: Iterable[Mapping[str, Any]], query: PageQuery) -> Table:
    """Show the connections in the requested order; of many, the first."""
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
    rows = [_connection_row(connection, query) for connection in shown]
    return Table(_sorting_columns(query), Folded(rows, len(rows), is_searched=False))


def _sorting_columns(query: PageQuery) -> list[PageColumn]:
    """A second click on a column turns its order around."""
    chosen, columns = query["sort"], []
    for name, key, write in _COLUMNS:
        now = {key: "ascending", f"-{key}": "descending"}.get(chosen, "")
        first, other = (f"-{key}", key) if write else (key, f"-{key}")
        link = query.link(sort=other if chosen == first else first, after="")
        columns.append(PageColumn(name, write is not None, f"{link}#connections", now))
    return columns


def _connection_row(connection: Mapping[str, Any], query: PageQuery) -> TableRow:
    identity = str(connection.get("id") or "-")
    return TableRow(
        cells_of(_COLUMNS, connection),
        f"{query.link(connection=identity)}#connections",
        connection_menu(identity, str(connection.get("client") or "")),
    )


def connection_menu(identity: str, client: str) -> list[Action]:
    path = _path("connections", identity, "close")
    end = Action("End it", path, question="End this connection?")
    return [end, *ban_menu(host_of(client))]


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
