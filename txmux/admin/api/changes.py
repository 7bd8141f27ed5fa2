"""Changes of a running service: reload, upgrade, stop, and the state of servers and listeners. Answered once the result is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from txmux.admin.api.openapi import body, ref
from txmux.admin.guard import RefusedError
from txmux.admin.resource import (
    ApiAnswer,
    Query,
    Resource,
    boolean,
    check_names,
    choice,
    report_of,
    whole_number,
)
from txmux.control.report import UnknownError

if TYPE_CHECKING:
    from txmux.control.overrides import ServerState
    from txmux.control.report import Report


_STATES: tuple[ServerState, ...] = ("ready", "drain", "maintenance")
_MOST_WEIGHT = 65535


async def _reload(query: Query) -> ApiAnswer:
    return _reported(await query.control.reload(), 422, "the rules are not reloaded")


async def _upgrade(query: Query) -> ApiAnswer:
    return _reported(await query.control.upgrade(), 409, "the old process goes on")


async def _stop(query: Query) -> ApiAnswer:
    query.control.stop_service()
    changes = "the service stops"
    return ApiAnswer.json({"ok": True, "changes": changes}, result=changes)


def _reported(report: Report, status: int, message: str) -> ApiAnswer:
    if not report.ok:
        raise RefusedError(status, f"{message}: {report.errors[0]}", report.errors)
    return ApiAnswer.json({"ok": True, "changes": report.changes}, result=report.changes)


async def _set_server(query: Query) -> ApiAnswer:
    body = query.body
    check_names(body, ("state", "weight", "close_connections"))
    state = choice(body, "state", _STATES)
    by_rules = "weight" in body and body["weight"] is None
    weight = 0 if by_rules else whole_number(body, "weight", 1, _MOST_WEIGHT)
    closing = boolean(body, "close_connections") or False
    if state is None and weight is None and not closing:
        raise RefusedError(400, 'say what is to change: {"state": "drain"} for example')
    try:
        report = await query.control.set_server(
            query.names["backend"],
            query.names["server"],
            state=state,
            weight=weight,
            close_connections=closing,
        )
    except UnknownError as problem:
        raise RefusedError(404, str(problem)) from None
    changes = report_of(report)
    return ApiAnswer.json({"ok": True, "changes": changes}, result=changes)


async def _set_listener(query: Query) -> ApiAnswer:
    check_names(query.body, ("accepting",))
    accepting = boolean(query.body, "accepting")
    if accepting is None:
        raise RefusedError(400, 'accepting: say which: {"accepting": false} for example')
    try:
        report = await query.control.set_listener(query.names["name"], accepting=accepting)
    except UnknownError as problem:
        raise RefusedError(404, str(problem)) from None
    changes = report_of(report)
    return ApiAnswer.json({"ok": True, "changes": changes}, result=changes)


RESOURCES = (
    Resource(
        "POST",
        "/api/backends/{backend}/servers/{server}",
        _set_server,
        is_change=True,
        summary="take a server out of use, or back",
        gives=ref("Done"),
        takes=body(
            {
                "state": _STATES,
                "weight": Annotated[int, 1, _MOST_WEIGHT] | None,
                "close_connections": bool,
            },
            minProperties=1,
        ),
    ),
    Resource(
        "POST",
        "/api/listeners/{name}",
        _set_listener,
        is_change=True,
        summary="accept the clients of a listener, or leave them in the queue of its socket",
        gives=ref("Done"),
        takes=body({"accepting": bool}, required=["accepting"]),
    ),
    Resource(
        "POST",
        "/api/reload",
        _reload,
        is_change=True,
        summary="read the rules again",
        gives=ref("Done"),
    ),
    Resource(
        "POST",
        "/api/upgrade",
        _upgrade,
        is_change=True,
        summary="move the service into a new process",
        gives=ref("Done"),
    ),
    Resource(
        "POST",
        "/api/stop",
        _stop,
        is_change=True,
        summary="stop the service",
        gives=ref("Done"),
    ),
)
