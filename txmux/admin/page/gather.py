"""Asking the service for all that the page shows."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, gatherResults

from txmux.admin.page.snapshot import History, Snapshot
from txmux.admin.page.table import PER_PAGE
from txmux.admin.page.told import bytes_told, connection_told
from txmux.admin.page.traffic import Traffic
from txmux.control.broadcast import Listing
from txmux.control.documents import rules_document
from txmux.control.filters import FilterError, Filters, Page
from txmux.control.report import UnknownError
from txmux.errors import OptionError
from txmux.matchers.payload import bytes_from_hex

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from txmux.admin.page.query import PageQuery
    from txmux.control.control import Control

_MOST_SORTED = 1000
"""Connections that are put into another order than theirs; of more, the first ones."""

_traffic: WeakKeyDictionary[Control, Traffic] = WeakKeyDictionary()


async def gather(control: Control, query: PageQuery) -> Snapshot:
    """Ask.

    Args:
        control: The service.
        query: What the page is to show.
    """
    now = time.time()
    # It takes longest, where there are many connections.
    counts = await control.counts()
    limit = _MOST_SORTED if query["sort"] else PER_PAGE + 1
    warnings = []
    try:
        page = Page.read({"limit": str(limit), "after": query["after"]})
        listing = control.connections(Filters.read(query.filters), page)
    except FilterError as problem:
        listing = _nothing()
        warnings.append(f"The filter cannot be read: {problem}.")
    connections, status, routes, backends, recent, unready = await _all(
        listing,
        control.status(counts),
        control.routes(counts),
        control.backends(counts),
        control.recent_failures(),
        control.missing(),
    )
    missing = dict.fromkeys([*connections.missing, *backends.missing, *recent.missing])
    warnings += [f"Not all is shown: {problem}." for problem in missing]
    traffic = _traffic.setdefault(control, Traffic(status["started"]))
    return Snapshot(
        now,
        status,
        unready,
        routes,
        traffic.now(now, routes),
        backends,
        connections,
        len(connections) == limit,
        recent,
        rules_document(control.rules),
        _history(control, now),
        warnings=warnings,
        connection=await _chosen(control, query["connection"]),
        explained=await _explained(control, query) if query["explain"] else "",
    )


async def _all(*asked: Coroutine[Any, Any, Any]) -> list[Any]:
    """Ask all at once, so that each process is waited for once."""
    return await gatherResults([Deferred.fromCoroutine(one) for one in asked], consumeErrors=True)


async def _nothing() -> Listing:
    return Listing()


def _history(control: Control, now: float) -> History:
    moments = control.rates.history()
    return History(
        [round(now - moment.ago) for moment in moments],
        [moment.connections for moment in moments],
        [moment.active for moment in moments],
        [moment.bytes for moment in moments],
    )


async def _chosen(control: Control, identity: str) -> dict[str, Any] | None:
    found = await control.connection(identity) if identity else None
    if found is None:
        return {"id": identity} if identity else None
    told = found.pop("explanation", None)
    return {**found, "explained": connection_told(told) if told else ""}


async def _explained(control: Control, query: PageQuery) -> str:
    try:
        data = bytes_from_hex("hex", query["explain"])
        client = ip_address(query["from"]) if query["from"] else None
        return bytes_told(await control.explain(data, query["on"] or None, client))
    except (OptionError, UnknownError) as problem:
        return str(problem)
    except ValueError:
        return "from: is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
