"""``/api/recent``: the last connections that did not end as they should."""

from __future__ import annotations

from txmux.admin.api.connections import incomplete
from txmux.admin.resource import Answer, Query, Resource


async def _recent(query: Query) -> Answer:
    listing = await query.control.recent_failures()
    return Answer.json(listing, headers=incomplete(listing.missing))


RESOURCES = (Resource("GET", "/api/recent", _recent),)
