"""``/api/routes``: the routes with what they have taken; ``/api/backends``: the servers and how they are."""

from __future__ import annotations

from txmux.admin.api.connections import incomplete
from txmux.admin.resource import Answer, Query, Resource


async def _routes(query: Query) -> Answer:
    return Answer.json(await query.control.routes())


async def _backends(query: Query) -> Answer:
    listing = await query.control.backends()
    return Answer.json(listing, headers=incomplete(listing.missing))


RESOURCES = (
    Resource("GET", "/api/routes", _routes),
    Resource("GET", "/api/backends", _backends),
)
