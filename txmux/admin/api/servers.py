"""``/api/backends/NAME/servers/SERVER``: taking a server out of use, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.admin.fields import boolean, check_names, choice, report_of, whole_number
from txmux.admin.refused import RefusedError
from txmux.admin.resource import Answer, Query, Resource
from txmux.control.report import UnknownError

if TYPE_CHECKING:
    from txmux.control.overrides import ServerState

_STATES: tuple[ServerState, ...] = ("ready", "drain", "maintenance")
_MOST_WEIGHT = 65535


async def _set(query: Query) -> Answer:
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
    return Answer.json({"ok": True, "changes": changes}, result=changes)


RESOURCES = (Resource("POST", "/api/backends/{backend}/servers/{server}", _set, is_change=True),)
