"""``/api/listeners/NAME``: whether the clients of a listener are accepted."""

from __future__ import annotations

from txmux.admin.fields import boolean, check_names, report_of
from txmux.admin.refused import RefusedError
from txmux.admin.resource import Answer, Query, Resource
from txmux.control.report import UnknownError


async def _set(query: Query) -> Answer:
    check_names(query.body, ("accepting",))
    accepting = boolean(query.body, "accepting")
    if accepting is None:
        raise RefusedError(400, 'accepting: say which: {"accepting": false} for example')
    try:
        report = await query.control.set_listener(query.names["name"], accepting=accepting)
    except UnknownError as problem:
        raise RefusedError(404, str(problem)) from None
    changes = report_of(report)
    return Answer.json({"ok": True, "changes": changes}, result=changes)


RESOURCES = (Resource("POST", "/api/listeners/{name}", _set, is_change=True),)
