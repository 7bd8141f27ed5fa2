"""``/api/status``: how the service is."""

from __future__ import annotations

from txmux.admin.resource import Answer, Query, Resource


async def _status(query: Query) -> Answer:
    return Answer.json(await query.control.status())


RESOURCES = (Resource("GET", "/api/status", _status),)
