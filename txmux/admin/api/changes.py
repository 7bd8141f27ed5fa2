"""Changes of a running service: reload, upgrade, stop, and the state of servers and listeners. Answered once the result is known."""

import math
from typing import Annotated

from txmux.admin.api.openapi import body
from txmux.admin.guard import RefusedError
from txmux.admin.resource import ApiAnswer, Query, ResourceList
from txmux.client.overrides import ServerState
from txmux.control import steering
from txmux.control.report import Report
from txmux.telemetry.documents import Reloaded, UpgradeCheck, Upgraded

RESOURCES = ResourceList()


@RESOURCES.change("/api/reload", "read the rules again", Reloaded, right="all")
async def _reload(query: Query) -> ApiAnswer:
    return _reported(await query.control.service.reload(), 422, "the rules are not reloaded")


@RESOURCES.change("/api/upgrade", "move the service into a new process", Upgraded, right="all")
async def _upgrade(query: Query) -> ApiAnswer:
    report = await query.control.service.upgrade()
    still = "" if query.control.is_stopping else "the old process keeps serving"
    return _reported(report, 409, still)


@RESOURCES.change(
    "/api/upgrade/check",
    "report which connections an upgrade would move, and why it would be refused",
    UpgradeCheck,
    right="all",
)
async def _check_upgrade(query: Query) -> ApiAnswer:
    report = await query.control.service.check_upgrade()
    if not report.details:
        return _reported(report, 409)
    refusals = [*report.errors]
    return ApiAnswer.done(report.changes, ready=report.ok, refusals=refusals, **report.details)


@RESOURCES.change("/api/stop", "stop the service", right="all")
async def _stop(query: Query) -> ApiAnswer:
    query.control.service.stop()
    return ApiAnswer.done("the service is shutting down")


def _reported(report: Report, status: int, message: str = "") -> ApiAnswer:
    if not report.ok:
        message = "" if report.changes else message
        why = report.errors[0]
        text = f"{message}: {why}" if message else why
        raise RefusedError(status, text, report.errors, summary=message)
    return ApiAnswer.done(report.changes, **report.details)


@RESOURCES.change(
    "/api/backends/{backend}/servers/{server}",
    "drain a server, put it into maintenance, or undo that",
    takes=body(
        {
            "state": ServerState,
            "weight": Annotated[int, 1, 65535] | None,
            "close_connections": bool,
        },
        minProperties=1,
    ),
)
async def _set_server(query: Query) -> ApiAnswer:
    body = query.body
    state, closing = body.get("state"), body.get("close_connections", False)
    by_rules = "weight" in body and body["weight"] is None
    weight = 0 if by_rules else body.get("weight")
    if state is None and weight is None and not closing:
        raise RefusedError(400, 'nothing to change; send for example {"state": "drain"}')
    backend, server = query.names["backend"], query.names["server"]
    report = await steering.set_server(
        query.control, backend, server, state=state, weight=weight, close_connections=closing
    )
    return _reported(report, 409)


@RESOURCES.change(
    "/api/backends/{backend}",
    "drain all servers of a backend, put them into maintenance, or undo that",
    takes=body({"state": ServerState, "close_connections": bool}, required=["state"]),
)
async def _set_backend(query: Query) -> ApiAnswer:
    state = query.body.get("state")
    if state is None:
        raise RefusedError(400, 'state: is missing; send for example {"state": "drain"}')
    closing = query.body.get("close_connections", False)
    report = await steering.set_backend(
        query.control, query.names["backend"], state, close_connections=closing
    )
    return _reported(report, 409)


@RESOURCES.change(
    "/api/certificates/{certificate}/renew", "renew a certificate that comes by ACME", right="all"
)
async def _renew(query: Query) -> ApiAnswer:
    report = await query.control.renew(query.names["certificate"].lower().removesuffix("."))
    return _reported(report, 409, "the certificate is not renewed")


@RESOURCES.change(
    "/api/backends/{backend}/hold",
    "let new clients of a backend wait, until it is released or for some seconds",
    takes=body({"seconds": Annotated[int, 1, 366 * 86400]}),
)
async def _hold(query: Query) -> ApiAnswer:
    seconds = query.body.get("seconds", math.inf)
    return _reported(await steering.hold(query.control, query.names["backend"], seconds), 409)


@RESOURCES.change("/api/backends/{backend}/release", "let the clients that wait by `hold` continue")
async def _release(query: Query) -> ApiAnswer:
    return _reported(await steering.release(query.control, query.names["backend"]), 409)


@RESOURCES.change(
    "/api/listeners/{name}",
    "accept the clients of a listener, or leave them in the queue of its socket",
    takes=body({"accepting": bool}, required=["accepting"]),
)
async def _set_listener(query: Query) -> ApiAnswer:
    accepting = query.body.get("accepting")
    if accepting is None:
        raise RefusedError(400, 'accepting: is missing; send for example {"accepting": false}')
    report = await steering.set_listener(query.control, query.names["name"], accepting=accepting)
    return _reported(report, 409)
