"""The page as its template needs it: a snapshot and a query in, HTML out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any

import attrs
import jinja2
from markupsafe import Markup

from txmux.classes import frozen
from txmux.control.filters import FILTERS
from txmux.control.rates import Moment
from txmux.errors import printable_lines
from txmux.features.page import map as drawing
from txmux.features.page import tables, unrecognised
from txmux.features.page.query import PageQuery
from txmux.features.page.unrecognised import ago
from txmux.telemetry import documents, formatting, presentation
from txmux.telemetry.formatting import count, duration
from txmux.telemetry.presentation import PAGE, Column, Row, Table

_HINTS = {"client": "10.0.0.0/8", "older": "5m", "state": "relaying"}
_MOST_ENDS = 10
_ALL = (
    "now", "servers", "ends", "unrecognised", "connections", "clients",
    "listeners", "map", "rules", "certificates", "bans",
)  # fmt: skip
_OF_ROUTE = ("route", "servers", "ends", "connections", "map", "rules")
_LED_TO = {"listener": "#connections", "backend": "#servers"}

_TIMES, _ACTIVE = Column("times", "count", "count"), Column("active", "active", "count")
_TRAFFIC = Column("traffic", "traffic", "byte rate")
_LISTENERS = documents.listeners()
_LISTENERS = _LISTENERS._replace(columns=[*_LISTENERS.columns, _ACTIVE, _TRAFFIC])
_OF_ENDS = documents.ENDS.only("route", "reason", "ended", "server", "listener", "client").columns
_ENDS = documents.ENDS._replace(title="ends", columns=[*_OF_ENDS[:3], _TIMES, *_OF_ENDS[3:]])
_FACTS = [
    field.column or Column(field.name.replace("_", " "), field.name)
    for field in documents.fields_of(documents.ConnectionDocument)
    if field.name != "facts"
]
_ROUTE = documents.ROUTES.only("to", "matches", "dry run", "last match", "active", "in", "out")


@frozen(slots=False)
class View:
    """The variable `page` of the template."""

    snapshot: PageSnapshot
    query: PageQuery

    # The head.

    @property
    def title(self) -> str:
        about = self.status.get("rules_path", "")
        return f"txmux: {about}" if self.route is None else f"txmux: route {self.query['route']}"

    @property
    def about(self) -> str:
        status = self.status
        since = duration(self.snapshot.now - status.get("started", self.snapshot.now))
        about = f"{status.get('version', '')}, process {status.get('pid', '')}, up {since}, {status.get('rules_path', '')}"
        return f"{about}, draining" if status.get("draining") else about

    @property
    def filters(self) -> list[dict[str, str]]:
        return [
            {"key": key, "value": value, "without": self.query.link(**{key: "", "after": ""})}
            for key, value in self.query.filters.items()
        ]

    @property
    def filter_fields(self) -> list[tuple[str, str, str]]:
        return [(name, self.query[name], _HINTS.get(name, "")) for name in FILTERS]

    @cached_property
    def route(self) -> Mapping[str, Any] | None:
        """The route that the page is about, if it is about one."""
        name = self.query["route"]
        if not name:
            return None
        return next((route for route in self.snapshot.routes if route["name"] == name), None)

    @property
    def parts(self) -> Mapping[str, str]:
        return {name: name.title() for name in (_ALL if self.route is None else _OF_ROUTE)}

    @property
    def route_facts(self) -> list[tuple[str, str]]:
        now = formatting.byte_rate(sum(self.snapshot.traffic.get(self.query["route"], {}).values()))
        cells = _ROUTE.cells(self.route or {}, PAGE, self.snapshot.now)
        titles = [column.title for column in _ROUTE.columns]
        listeners = ", ".join(self._listeners_of_route)
        return [("listeners", listeners), *zip(titles, cells, strict=True), ("now", now)]

    @property
    def _listeners_of_route(self) -> list[str]:
        return [counts["listener"] for counts in (self.route or {}).get("listeners", ())]

    # Now.

    @property
    def attention(self) -> list[dict[str, str]]:
        """What needs attention, the worst first."""
        missing = [{"level": "warning", "text": text} for text in self.snapshot.warnings]
        found = [*self.status.get("attention", ()), *missing]
        return [*map(self._attention_item, presentation.folded_attention({"attention": found}))]

    def _attention_item(self, item: Row) -> dict[str, str]:
        text, since = str(item["text"]).removesuffix("."), item["since"]
        is_name = "." in text.partition(" ")[0]  # of a host, which is written as it is
        return {
            **item,
            "text": f"{text if is_name else text[:1].upper() + text[1:]}.",
            "since": f"for {duration(self.snapshot.now - since)}" if since else "",
            "link": f"./{item['link']}" if item["link"] else "",
        }

    @property
    def charts(self) -> list[drawing.Chart]:
        moments = self.snapshot.history
        times = [round(self.snapshot.now - moment.ago) for moment in moments]
        series = (
            ("connections", "Connections a second", formatting.rate),
            ("active", "Active connections", count),
            ("bytes", "Bytes a second", formatting.byte_rate),
        )
        return [
            drawing.chart(name, title, times, [getattr(its, name) for its in moments], write)
            for name, title, write in series
        ]

    @property
    def figures(self) -> list[tuple[str, str]]:
        status = self.status
        connections = status.get("connections", {})
        limit = connections.get("limit")
        most = f" of {count(limit)}" if limit else ""
        return [
            ("active", count(connections.get("active", 0)) + most),
            ("undecided", count(connections.get("undecided", 0))),
            ("accepted", count(connections.get("total", 0))),
            ("generation", str(status.get("generation", ""))),
        ]

    def table(self, part: str) -> tables.PageTable:
        table, rows_of, most = _TABLES[part]
        return tables.page_table(table, [*rows_of(self)], self.query, self.snapshot.now, most)

    # Listeners and the map.

    def listeners(self) -> Iterator[Row]:
        flows = self.snapshot.flows or drawing.listener_flows(self._map_routes)
        for row in self.status.get("listeners", ()):
            flow = flows.get(row["name"], drawing.RouteFlow())
            yield {**row, "active": flow.active, "traffic": flow.traffic}

    @cached_property
    def _map_routes(self) -> list[drawing.MapRoute]:
        traffic = self.snapshot.traffic
        return [
            drawing.map_route(route, traffic.get(route["name"], {}))
            for route in self.snapshot.routes
        ]

    @property
    def map(self) -> drawing.Map:
        listed = self.status.get("listeners", ())
        listeners = {row["name"]: presentation.listener_health(row) or "up" for row in listed}
        routes, chosen = self._map_routes, self.query["route"]
        if self.route is not None:
            near = {chosen, *self.route.get("under", ())}
            routes = [route for route in routes if route.name in near or chosen in route.under]
            listeners = {name: listeners[name] for name in self._listeners_of_route}
        everything = self.query["map"] == "all"
        named = {route.backend for route in routes}
        backends = (row for row in self.snapshot.backends if row["name"] in named)
        servers = {row["name"]: tables.map_servers(row) for row in backends}
        flows = None if self.route is not None else self.snapshot.flows
        return drawing.draw(
            listeners, routes, servers, flows=flows, everything=everything, chosen=chosen
        )

    def of_box(self, box: drawing.Box) -> str:
        """Return the page that shows only what belongs to a box of the map."""
        if box.kind == "folded":
            if box.of:
                return self.query.link(backend=box.of, server="", after="") + "#servers"
            return self.query.link(map="all") + "#map"
        if box.kind == "server":
            return self.query.link(backend=box.of, server=box.name, after="") + "#connections"
        return self.query.link(**{box.kind: box.name, "after": ""}) + _LED_TO.get(box.kind, "")

    def is_chosen(self, box: drawing.Box) -> bool:
        return self.query[box.kind] == box.name

    # Connections.

    @property
    def connections(self) -> tables.PageTable:
        return tables.connections_table(self.snapshot.connections, self.query, self.snapshot.now)

    @property
    def connections_summary(self) -> str:
        total = len(self.snapshot.connections)
        if not total:
            return "None match this filter." if self.query.filters else "None now."
        shown = tables.connections_shown(total, self.query)
        what = "connection" if total == 1 else "connections"
        if self.snapshot.is_cut:
            if self.query["sort"]:
                return f"{count(shown)} of the first {count(total)} {what}, sorted; there are more."
            active = self.status.get("connections", {}).get("active", 0)
            if active > total and not (self.query.filters or self.query["after"]):
                return f"{count(shown)} of {count(active)} {what}."
            return f"The first {count(shown)} {what}; there are more."
        return f"{count(shown)} of {count(total)} {what}." if shown < total else f"{total} {what}."

    @property
    def next_page(self) -> str:
        """The link to the next page, or to all of those that are sorted; empty on the last one."""
        connections = self.snapshot.connections
        shown = tables.connections_shown(len(connections), self.query)
        if shown == len(connections):
            return ""
        if self.query["sort"]:
            return self.query.link(all="connections")
        return self.query.link(after=str(connections[shown - 1]["id"]))

    @property
    def connection(self) -> dict[str, Any] | None:
        chosen = self.snapshot.connection
        if chosen is None:
            return None
        if chosen.keys() == {"id"}:
            return {"id": chosen["id"], "facts": (), "explained": None, "is_live": False}
        cells = {column.title: column.cell(chosen, PAGE, self.snapshot.now) for column in _FACTS}
        found = [(name, str(value)) for name, value in (chosen.get("facts") or {}).items()]
        return {
            "id": chosen["id"],
            "facts": [
                *(item for item in cells.items() if item[1] != "-"),
                *filter(itemgetter(1), found),
            ],
            "explained": chosen.get("explained"),
            "is_live": True,
            "menu": tables.connection_menu(chosen),
        }

    # Ends.

    @property
    def unrecognised(self) -> tables.Folded[dict[str, Any]]:
        """Clients that no route took, identical ones once, the last one first."""

        def row_of(alike: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            return unrecognised.unrecognised_client(alike, self.snapshot.now, self.query)

        def text(row: dict[str, Any]) -> str:
            return "\n".join([*row["clients"], row["listener"], row["reason"], *row["lines"]])

        alike = unrecognised.identical_clients(self.recent())
        every = {bytes.fromhex(end["first"]) for end, *_ in alike}
        folded = tables.fold(alike, row_of, text, self.query, "unrecognised", _MOST_ENDS)
        for row in folded.rows:
            data = row["data"]
            known = self.snapshot.recognised.get(row["begins"])
            row["suggestion"] = known or unrecognised.line_for(data, every - {data})
        return folded

    def recent(self) -> Iterator[Mapping[str, Any]]:
        filters = self.query.filters_of_ends()
        return (end for end in self.snapshot.recent if filters.fit_end(end))

    # Servers and rules.

    @cached_property
    def servers(self) -> Any:
        snapshot = self.snapshot
        return tables.server_rows(snapshot.backends, snapshot.routes, self.query, snapshot.now)

    @property
    def servers_summary(self) -> str:
        """How many servers there are in each state, if the part is about all."""
        if self.query.filters:
            return ""
        servers = presentation.server_rows(self.snapshot.backends)
        states = Counter(map(presentation.server_state, servers))
        each = ", ".join(f"{count(number)} {state}" for state, number in states.items())
        return f"{formatting.plural(len(servers), 'server')}: {each}." if servers else ""

    @property
    def backends(self) -> list[tables.BackendGroup]:
        return tables.by_backend(self.servers.rows, self.snapshot.backends)

    @property
    def server_titles(self) -> list[str]:
        return [column.title for column in tables.MEASURED.columns]

    def routes_to(self, backend: str) -> list[tuple[str, str]]:
        return [(name, self.query.link(route=name)) for name in self.snapshot.routes_to(backend)]

    @property
    def reload_summary(self) -> str:
        last = self.status.get("last_reload")
        if not last:
            return "Loaded at the start, not reloaded since."
        when = ago(self.snapshot.now, last.get("time"))
        if not (last.get("ok") or last.get("changes")):
            return f"The last reload, {when}, failed; the previous rules are in force."
        return f"Reloaded {when}: {last.get('changes') or 'nothing changed'}."

    @property
    def status(self) -> Mapping[str, Any]:
        return self.snapshot.status


_TABLES: Mapping[str, tuple[Table, Callable[[View], Iterable[Row]], int]] = {
    "workers": (documents.WORKERS, lambda view: view.status.get("workers", ()), tables.MOST_ROWS),
    "ends": (_ENDS, lambda view: unrecognised.similar_ends(view.recent()), _MOST_ENDS),
    "clients": (documents.CLIENTS, lambda view: view.snapshot.clients, _MOST_ENDS),
    "listeners": (_LISTENERS, View.listeners, tables.MOST_ROWS),
    "certificates": (
        documents.CERTIFICATES, lambda view: sorted(view.snapshot.certificates, key=presentation.certificate_rank), tables.MOST_ROWS,
    ),
    "bans": (documents.BANS, lambda view: view.snapshot.bans, _MOST_ENDS),
}  # fmt: skip
"""By its part of the page, a table, its rows, and of how many of them all are shown."""


@frozen
class PageSnapshot:
    """The answers of the API at one moment, under the names of its resources.

    Attributes:
        routes: Those of which something is shown; one without a name stands for others between them.
        traffic: Bytes a second of each route, by listener.
        flows: The traffic of each listener, if not all routes are here.
        routes_to: Gives the names of the routes to a backend.
        is_cut: Whether there are more connections.
        warnings: Parameters that could not be used, a sentence each.
        explained: The explanation of bytes that the operator sent.
    """

    now: float
    status: Mapping[str, Any]
    routes: Sequence[Mapping[str, Any]] = ()
    traffic: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    flows: Mapping[str, drawing.RouteFlow] | None = None
    routes_to: Callable[[str], Sequence[str]] = lambda _: ()
    backends: Sequence[Mapping[str, Any]] = ()
    connections: Sequence[Mapping[str, Any]] = ()
    is_cut: bool = False
    recent: Sequence[Mapping[str, Any]] = ()
    recognised: Mapping[tuple[str, bool], str] = attrs.field(factory=dict)
    clients: Sequence[Mapping[str, Any]] = ()
    certificates: Sequence[Mapping[str, Any]] = ()
    bans: Sequence[Mapping[str, Any]] = ()
    rules: Sequence[tables.RulesFile] = ()
    has_long_rules: bool = False
    history: Sequence[Moment] = ()
    warnings: Sequence[str] = ()
    connection: Mapping[str, Any] | None = None
    explained: Sequence[PageExplanation] = ()


@frozen
class PageExplanation:
    """How routes answered: a text, and others below their titles that are shown on request."""

    text: str
    folded: Sequence[tuple[str, str]] = ()


def _printable(value: object) -> object:
    """Escape what others have written, in whatever place of the page."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable_lines(value) if is_text else value  # type: ignore[arg-type]


@cache
def _template() -> jinja2.Template:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("txmux.features.page", "templates"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A block by itself has what a template imports only so.
    templates.globals["parts"] = templates.get_template("parts.html").module
    return templates.get_template("page.html")


def render(view: View) -> Iterator[str]:
    return _template().generate(page=view)


def render_parts(view: View) -> Iterator[tuple[str, Iterator[str]]]:
    """Write the parts that change: the name of each, and its pieces."""
    template = _template()
    for name, write in template.blocks.items():
        if name in view.parts:
            yield name, write(template.new_context({"page": view}))
