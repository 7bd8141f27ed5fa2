"""Collects the data of the page."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from weakref import WeakKeyDictionary

from txmux.control.broadcast import Listing, concurrently
from txmux.control.connections import find_connection, list_clients, list_connections
from txmux.control.control import Control
from txmux.control.documents import routes_document, rules_document, short_forms
from txmux.control.filters import FilterError, Filters, Page
from txmux.control.report import UnknownError
from txmux.errors import OptionError
from txmux.features.page.map import health_of
from txmux.features.page.query import PageQuery
from txmux.features.page.routes import RouteTraffic, shown_routes, uses
from txmux.features.page.tables import MOST_ROWS, are_long, files_in_steps, map_servers
from txmux.features.page.unrecognised import begins
from txmux.features.page.view import PageExplanation, PageSnapshot
from txmux.matchers.payload import bytes_from_hex
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.net.turns import Turns
from txmux.telemetry.explanation import (
    EXPLANATION_COLUMNS,
    ExplainedRoute,
    Explanation,
    explained_connection,
    explained_layers,
    folded_routes,
)
from txmux.telemetry.formatting import aligned, plural

_MOST_SORTED = 1000
"""Connections that can be sorted, and bans that can be searched; of more connections the first ones, of more bans the last."""

_LINE = re.compile(r"match = [a-z0-9_-]+(?: (?:sni|host)=[A-Za-z0-9_.-]+)?")
"""What a worker may propose, which may be compromised."""

_traffic: WeakKeyDictionary[Control, RouteTraffic] = WeakKeyDictionary()


async def gather(control: Control, query: PageQuery, *, is_update: bool = False) -> PageSnapshot:
    """Collect all of the page, or for an update all but the text of the rules and the explanation, which do not change."""
    now = time.time()
    limit = _MOST_SORTED if query["sort"] else MOST_ROWS + 1
    warnings = []
    try:
        page = Page.read({"limit": str(limit), "after": query["after"]})
        listing = list_connections(control, Filters.read(query.filters), page)
    except FilterError as problem:
        listing = _nothing()
        warnings.append(f"The filter cannot be read: {problem}.")
    picking = _chosen(control, query["connection"])
    reports, connections, clients, certificates, chosen = await concurrently(
        control.ask(), listing, list_clients(control), control.certificates(), picking
    )
    index = control.index
    counts = await control.counts(reports)
    backends = await control.backends(counts, reports.addresses)
    status = await control.status(reports, backends)
    turns = Turns()
    used = [
        its for its in await turns.collect(counts.routes.used()) if its.route in index.positions
    ]
    traffic = await turns.run(
        _traffic.setdefault(control, RouteTraffic(control.started)).now(now, used)
    )
    by_route, flows = await turns.run(uses(used, traffic))
    healths = dict(
        await turns.collect((its["name"], health_of(map_servers(its))) for its in backends)
    )
    routes: list[Mapping[str, Any]] = []
    for route in shown_routes(index, by_route, healths, query):
        routes += [route] if isinstance(route, dict) else routes_document(index, counts, [route])
        await turns.pause()
    routes += routes_document(index, counts, short_forms(index.rules))
    rules = [] if is_update else [*rules_document(index)]
    recent = control.recent_failures()
    listings = (connections, backends, clients, certificates, chosen)
    lacking = (reports.lacking, *(listing.missing for listing in listings))
    missing = dict.fromkeys(line for lines in lacking for line in lines)
    warnings += [f"Not all is shown: {problem}." for problem in missing]
    return PageSnapshot(
        now,
        status,
        routes,
        traffic,
        flows,
        index.routes_to,
        backends,
        connections,
        len(connections) == limit,
        recent,
        await _recognised(control, recent),
        clients,
        certificates,
        [
            ban.as_json(control.bans.now())
            for ban in reversed(control.bans.current()[-_MOST_SORTED:])
        ],
        await turns.run(files_in_steps(rules, routes, by_route, query)),
        are_long(rules),
        control.rates.history(),
        warnings=warnings,
        connection=next(iter(chosen), None),
        explained=await _explained(control, query) if query["explain"] and not is_update else (),
    )


async def _nothing() -> Listing[Any]:
    return Listing()


async def _chosen(control: Control, identity: str) -> Listing[Any]:
    if not identity:
        return Listing()
    listing = await find_connection(control, identity)
    if not listing:
        return Listing([{"id": identity}], listing.missing)
    (row,) = listing
    explained = {name: value for name, value in row.items() if name != "explanation"}
    explained["explained"] = page_explanation(explained_connection(row)._replace(title=""))
    return Listing([explained], listing.missing)


async def _recognised(
    control: Control, recent: Iterable[Mapping[str, Any]]
) -> Mapping[tuple[str, bool], str]:
    """Return a line of ``match =`` for first bytes that an installed matcher takes: a worker knows."""
    asked = dict.fromkeys(begins(end) for end in recent if end.get("first"))
    with suppress(ChannelError):
        lines = asked and await control.ask_one(messages.RECOGNISE, clients=[*asked])
        found = zip(asked, lines, strict=False)
        return {one: line for one, line in found if _LINE.fullmatch(line)}
    return {}


async def _explained(control: Control, query: PageQuery) -> list[PageExplanation]:
    try:
        data = bytes_from_hex("hex", query["explain"])
        client = ip_address(query["from"]) if query["from"] else None
        document = await control.explain(data, query["on"] or None, client)
        return [
            page_explanation(why)
            for stream in document["streams"]
            for trace in stream["listeners"]
            for why in explained_layers(stream, trace)
        ]
    except (ChannelError, OptionError, UnknownError) as problem:
        return [PageExplanation(str(problem))]
    except ValueError:
        wrong = "from: is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
        return [PageExplanation(wrong)]


def page_explanation(why: Explanation) -> PageExplanation:
    """Format an explanation; routes that were not asked are folded, and in a long one those that said no."""
    is_long = sum(route.answer != "not asked" for route in why.routes) > MOST_ROWS
    rows, kinds = folded_routes(why.routes, {"not asked", "no"} if is_long else {"not asked"})
    shown = _table(rows)
    lines = [*([why.title] if why.title else ()), *shown, *([""] if shown else ())]
    folded = []
    for kind, rows in kinds.items():
        number = plural(sum(bool(row.name) for row in rows), "route")
        folded.append((f"{kind}: {number}", "\n".join(_table(rows))))
    return PageExplanation("\n".join([*lines, *aligned(why.conclusion)]), folded)


def _table(routes: Sequence[ExplainedRoute]) -> list[str]:
    cells = (EXPLANATION_COLUMNS, *(route.cells for route in routes))
    return [*aligned(cells)] if routes else []
