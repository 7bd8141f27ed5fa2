"""``/healthz`` and ``/readyz``."""

from __future__ import annotations

from txmux.admin.resource import Answer, Query, Resource


async def _is_up(_: Query) -> Answer:
    return Answer.json({"ok": True})


async def _is_ready(query: Query) -> Answer:
    missing = await query.control.missing()
    answer = {"ready": not missing, "missing": missing, "stale": query.control.stale()}
    return Answer.json(answer, 503 if missing else 200)


RESOURCES = (
    Resource("GET", "/healthz", _is_up),
    Resource("GET", "/readyz", _is_ready),
)
