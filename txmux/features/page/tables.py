"""The tables of the page, and the rules with the hits of each route."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import attrs

from txmux.classes import frozen
from txmux.features.page.map import MapServer, flow_text, health_of, how_many
from txmux.features.page.query import PageQuery
from txmux.features.page.routes import RouteUse
from txmux.features.page.unrecognised import ago, host_of
from txmux.telemetry import presentation
from txmux.telemetry.documents import CONNECTIONS, SERVERS
from txmux.telemetry.formatting import count, milliseconds, plural, rate
from txmux.telemetry.presentation import PAGE, Column, Health, Row, Table

_STATES = (("Ready", "ready"), ("Drain", "drain"), ("Maintenance", "maintenance"))
_STEERED = {"drain", "maintenance"}
_BANS: Sequence[tuple[str, Mapping[str, int]]] = (
    ("Ban for an hour", {"seconds": 3600}),
    ("Ban until lifted", {}),
)
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


@frozen
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


@frozen
class PageColumn:
    """A column: its name, whether it has numbers, a link that sorts by it, and how it is sorted now."""

    name: str
    number: bool
    link: str = ""
    sorted: str = ""


@frozen
class TableRow:
    """A row: its cells as text, a link of the first one, its actions, and the colour of its state."""

    cells: Sequence[str]
    health: Health | None = None
    link: str = ""
    menu: Sequence[Action] = ()


@frozen
class PageTable:
    """A table, of which some rows may be folded."""

    columns: Sequence[PageColumn]
    body: Folded[TableRow]


def page_table(
    table: Table, items: Sequence[Row], query: PageQuery, now: float, most: int
) -> PageTable:
    """Show rows of the API, with their links and menus. Columns that may be left out are, if they are empty."""
    part = table.title
    changed, field, anchor = _LINKS.get(part, ({}, "", ""))
    menu_of = _MENUS.get(part, lambda _: ())

    def row_of(item: Row) -> TableRow:
        value = str(item.get(field) or "")
        values = {name: text.format(value) for name, text in changed.items()}
        link = query.link(**values) + anchor if value else ""
        return TableRow(table.cells(item, PAGE, now), table.health(item), link, menu_of(item))

    body = fold(items, row_of, lambda row: " ".join(row.cells), query, part, most)
    shown = [
        at
        for at, column in enumerate(table.columns)
        if not column.goes or any(row.cells[at] not in {"", "-"} for row in body.rows)
    ]
    rows = [attrs.evolve(row, cells=[row.cells[at] for at in shown]) for row in body.rows]
    titles = (table.columns[at] for at in shown)
    columns = [_column(column, query, is_sorted=part == "connections") for column in titles]
    return PageTable(columns, attrs.evolve(body, rows=rows))


def _column(column: Column, query: PageQuery, *, is_sorted: bool) -> PageColumn:
    """A second click on a column turns its order around."""
    if not is_sorted:
        return PageColumn(column.title, column.is_number)
    key, chosen = column.field, query["sort"]
    now = {key: "ascending", f"-{key}": "descending"}.get(chosen, "")
    first, other = (f"-{key}", key) if column.is_number else (key, f"-{key}")
    link = query.link(sort=other if chosen == first else first, after="")
    return PageColumn(column.title, column.is_number, f"{link}#connections", now)


def _path(*parts: str) -> str:
    return "/".join(["api", *(quote(part, safe="", errors="replace") for part in parts)])


def _client_menu(client: Row) -> list[Action]:
    source, path = str(client["source"]), "api/connections/close"
    end = ("End its connections", path, {"client": source}, f"End all connections of {source}?")
    return [Action(*end), *_ban_menu(source)]


def _ban_menu(source: str) -> list[Action]:
    return [
        Action(label, "api/bans", {"network": source, **how}, f"{label}: {source}?")
        for label, how in (_BANS if source else ())
    ]


def _lifting(ban: Row) -> list[Action]:
    network = ban["network"]
    question = f"Lift the ban of {network}?"
    return [Action("Lift", "api/bans/remove", {"network": network}, question)]


def _renewal(certificate: Row) -> list[Action]:
    names = certificate.get("names") if certificate.get("acme") else ()
    return [Action("Renew", _path("certificates", names[0], "renew"))] if names else []


def _listener_menu(listener: Row) -> list[Action]:
    name, is_paused = str(listener["name"]), presentation.listener_health(listener) == "drain"
    label, question = ("Resume", "") if is_paused else ("Pause", f"Accept no clients of {name}?")
    return [Action(label, _path("listeners", name), {"accepting": is_paused}, question)]


def connection_menu(connection: Row) -> list[Action]:
    path = _path("connections", str(connection["id"]), "close")
    end = Action("End it", path, question="End this connection?")
    return [end, *_ban_menu(host_of(str(connection.get("client") or "")))]


_MENUS: Mapping[str, Callable[[Row], Sequence[Action]]] = {
    "connections": connection_menu,
    "clients": _client_menu,
    "bans": _lifting,
    "certificates": _renewal,
    "listeners": _listener_menu,
}
_LINKS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "connections": ({"connection": "{}"}, "id", "#connections"),
    "clients": ({"client": "{}", "after": ""}, "source", "#connections"),
    "listeners": ({"listener": "{}", "after": ""}, "name", "#connections"),
    "ends": ({"route": "{}", "after": ""}, "route", ""),
}
"""By the part: the parameters of the page that a row sets, the field with the value, and the part that is shown."""


def backends_of_route(routes: Iterable[Mapping[str, Any]], name: str) -> set[str]:
    """Return the names of the backends of a route, or of those below it if it ends TLS."""
    return {
        str(route["backend"])
        for route in routes
        if route.get("backend") and name in {route["name"], *(route.get("under") or ())}
    }


def server_rows(
    backends: Sequence[Row], routes: Sequence[Row], query: PageQuery, now: float
) -> Folded[dict[str, Any]]:
    """Return the servers that fit the filter by backend; in each, and of all backends, those down or drained come first."""
    of_route = backends_of_route(routes, query["route"]) if query["route"] else None
    ranked = presentation.server_rows(backends)
    place = {server["backend"]: at for at, server in reversed([*enumerate(ranked)])}
    servers = [
        server
        for server in sorted(ranked, key=lambda server: place[server["backend"]])
        if query.fits(backend=server["backend"], server=server["server"])
        and (of_route is None or server["backend"] in of_route)
    ]
    texts = ("backend", "name", "state", "why", "found")

    def text(row: dict[str, Any]) -> str:
        return " ".join(row[name] for name in texts)

    return fold(servers, lambda server: _server_row(server, now), text, query, "servers")


MEASURED = SERVERS.only("active", "rate", "in", "out", "first byte")


def _server_row(server: Row, now: float) -> dict[str, Any]:
    backend, name, check = server["backend"], server["server"], server.get("check") or {}
    checks = [bool(passed) for passed in check.get("history", ())]  # oldest first
    why, last = str(server.get("why") or ""), server.get("last_failure") or {}
    cause, full = str(last.get("cause", "")), server.get("weight", 1)
    return {
        "backend": backend,
        "name": name,
        "found": presentation.found_addresses(server),
        "state": presentation.server_state(server),
        "health": presentation.server_health(server),
        "why": why,
        "since": ago(now, server.get("since")),
        "weight": presentation.slow_start(server) or (f"weight {count(full)}" if full != 1 else ""),
        "cells": MEASURED.cells(server, PAGE, now),
        "failed": count(server.get("failed", 0)),
        "last_failure": "" if cause in why else f"{cause}, {ago(now, last.get('time'))}",
        "checks": checks,
        "checks_label": f"{sum(checks)} of the last {plural(len(checks), 'check')} good",
        "last_check": _last(check, why),
        "menu": _server_menu(backend, name, str(server["state"])),
    }


def _server_menu(backend: str, server: str, state: str) -> list[Action]:
    path = _path("backends", backend, "servers", server)
    steered = state if state in _STEERED else "ready"
    weight = f"Weight of {server}, from 1 to 65535"
    end = "End its connections", path, {"close_connections": True}
    return [
        *(Action(label, path, {"state": to}) for label, to in _STATES if to != steered),
        Action("Set its weight", path, question=weight, field="weight"),
        Action(*end, f"End all connections to {server}?"),
    ]


@frozen
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
    shown = map_servers(backend)
    waiting = f"{plural(backend['held'], 'client')} waiting" if backend.get("held") else ""
    note = ", ".join(filter(None, ["held" if hold else "", waiting]))
    sums = {
        field: sum(server.get(field) or 0 for server in servers)
        for field in ("active", "rate", "bytes_in", "bytes_out")
        if any(field in server for server in servers)
    }
    hold_action = ("Release its clients", "release") if hold else ("Hold new clients", "hold")
    several = _STATES if len(servers) > 1 else ()
    menu = [
        *(Action(f"{label}: all", _path("backends", name), {"state": to}) for label, to in several),
        Action(hold_action[0], _path("backends", name, hold_action[1])),
    ]
    states = how_many([server.health for server in shown])
    summary = f"{states}, {note}" if note else states
    cells, is_single = MEASURED.cells(sums, PAGE), len(servers) == 1
    return BackendGroup(name, health_of(shown), summary, cells, menu, rows, is_single, note)


def _last(check: Mapping[str, Any], why: str) -> str:
    if check.get("ok") is None:
        return ""
    took = check.get("duration_ms")
    result = str(check.get("result") or ("good" if check["ok"] else "bad"))
    # A good one has its colour, and the cause may be beside it already.
    is_known = took is not None and (check["ok"] or why.endswith(result))
    parts = [] if is_known else [result]
    return ", ".join(parts if took is None else [*parts, milliseconds(took)])


def map_servers(backend: Mapping[str, Any]) -> list[MapServer]:
    healths = ((row, presentation.server_health(row)) for row in backend["servers"])
    return [MapServer(row["server"], health, _flow(row)) for row, health in healths]


def _flow(server: Row) -> str:
    return flow_text(server.get("active") or 0, rate(server["rate"]) if server.get("rate") else "")


_CONNECTIONS = CONNECTIONS.only(
    "client", "listener", "route", "server", "state", "age", "idle", "in", "out"
)._replace(health=lambda _: None)


def connections_table(connections: Sequence[Row], query: PageQuery, now: float) -> PageTable:
    """Show the connections in the requested order; of many, the first."""
    by_field = {column.field: column for column in _CONNECTIONS.columns}
    column = by_field.get(query["sort"].lstrip("-"))
    if column is not None:
        is_descending = query["sort"].startswith("-")
        connections = presentation.ordered(connections, column, is_descending=is_descending)
    shown = connections[: connections_shown(len(connections), query)]
    return page_table(_CONNECTIONS, shown, query, now, len(shown))


@frozen
class RulesLine:
    """A line of a rules file: its number, its text, the hits of the route that begins there, and an anchor for that section."""

    number: int
    text: str
    hits: str = ""
    section: str = ""


@frozen
class RulesFile:
    """A rules file; without lines if it is so long that they are shown on request."""

    path: str
    lines: Sequence[RulesLine]


def are_long(files: Iterable[Mapping[str, Any]]) -> bool:
    lines: int = sum(file["text"].count("\n") for file in files)
    return lines > MOST_ROWS


def files_in_steps(
    files: Sequence[Mapping[str, Any]],
    routes: Iterable[Row],
    hits: Mapping[str, RouteUse],
    query: PageQuery,
) -> Generator[None, None, list[RulesFile]]:
    """Return the files; with a filter or a search, only the sections that it is about.

    Args:
        files: The document for ``/api/rules``.
        routes: Those that a filter is about, at least.
        hits: Of routes, by name.
        query: The query of the page.
    """
    named = _sections_of(routes, query)
    is_whole = not (named or query["rules"])
    is_folded = is_whole and are_long(files) and query["all"] != "rules"
    shown = []
    for file in files:
        begins: dict[int, str] = {}
        for section in () if is_folded else file["sections"]:
            name = section["name"]
            if is_whole or (
                (not named or name in named)
                and query.finds("rules", name, str(section.get("text", "")))
            ):
                begins[section["line"]] = name
            elif begins:
                begins[section["line"]] = ""
            yield
        is_read = bool(begins) or (is_whole and not is_folded)
        lines, within = [], is_whole
        for number, text in enumerate(file["text"].splitlines() if is_read else (), 1):
            name = begins.get(number, "")
            within = bool(name) if number in begins else within
            if within:
                lines.append(RulesLine(number, text, _hits(name, hits), name.replace(" ", "-")))
            yield
        if is_whole or lines:
            shown.append(RulesFile(file["file"], lines))
    return shown


def _sections_of(routes: Iterable[Row], query: PageQuery) -> set[str]:
    kinds = {"listener": "listen", "route": "route", "backend": "backend"}
    named = {f"{word} {query[kind]}" for kind, word in kinds.items() if query[kind]}
    return named | {f"backend {backend}" for backend in backends_of_route(routes, query["route"])}


def _hits(section: str, hits: Mapping[str, RouteUse]) -> str:
    kind, _, name = section.partition(" ")
    if kind != "route":
        return ""
    use = hits.get(name, RouteUse())
    matches, dry = count(use.matches), use.dry_run_matches
    return f"{matches} (dry run: {count(dry)})" if dry else matches
