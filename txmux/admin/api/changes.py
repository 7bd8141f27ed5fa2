"""``/api/reload``, ``/api/upgrade`` and ``/api/stop``: answered when it is known what has come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.admin.refused import RefusedError
from txmux.admin.resource import Answer, Query, Resource

if TYPE_CHECKING:
    from txmux.control.report import Report


async def _reload(query: Query) -> Answer:
    return _told(await query.control.reload(), 422, "the rules are not reloaded")


async def _upgrade(query: Query) -> Answer:
    return _told(await query.control.upgrade(), 409, "the old process goes on")


async def _stop(query: Query) -> Answer:
    query.control.stop_service()
    told = "the service stops"
    return Answer.json({"ok": True, "changes": told}, result=told)


def _told(report: Report, status: int, message: str) -> Answer:
    if not report.ok:
        raise RefusedError(status, f"{message}: {report.errors[0]}", report.errors)
    return Answer.json({"ok": True, "changes": report.changes}, result=report.changes)


RESOURCES = (
    Resource("POST", "/api/reload", _reload, is_change=True),
    Resource("POST", "/api/upgrade", _upgrade, is_change=True),
    Resource("POST", "/api/stop", _stop, is_change=True),
)
