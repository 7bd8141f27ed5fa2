"""``/api/bans``: lists, sets and lifts bans."""

import math
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any

from txmux.access.bans import LONGEST_REASON, Ban, BanError, banned_network
from txmux.admin.api.openapi import body
from txmux.admin.encoding import listed
from txmux.admin.guard import RefusedError
from txmux.admin.resource import ApiAnswer, Query, ResourceList
from txmux.rules.model import IPNetwork
from txmux.rules.reading.values import no_network
from txmux.telemetry.documents import BanDocument

_SECONDS = Annotated[int, 1, 10 * 366 * 86400]
_ALL = (
    "this would ban all clients; to let none in, write txmux pause LISTENER, "
    'or POST {"accepting": false} to /api/listeners/NAME'
)

RESOURCES = ResourceList()


@RESOURCES.get("/api/bans", "the bans", list[BanDocument])
async def _list(query: Query) -> ApiAnswer:
    bans = query.control.bans
    now = bans.now()
    return await listed(ban.as_json(now) for ban in bans.current())


@RESOURCES.change(
    "/api/bans",
    "ban a network",
    takes=body({"network": str, "seconds": _SECONDS, "reason": str}, required=["network"]),
)
async def _ban(query: Query) -> ApiAnswer:
    body = query.body
    network = _network(body)
    if not network.prefixlen:
        raise RefusedError(400, f"network: {_ALL}")
    seconds, reason = body.get("seconds"), body.get("reason", "")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise RefusedError(400, f"reason: must be one line of up to {LONGEST_REASON} characters")
    bans = query.control.bans
    now = bans.now()
    until = math.inf if seconds is None else now + seconds
    return await _changed(bans.add(Ban(network, now, until, reason)), 409)


@RESOURCES.change(
    "/api/bans/remove", "lift a ban", takes=body({"network": str}, required=["network"])
)
async def _unban(query: Query) -> ApiAnswer:
    return await _changed(query.control.bans.lift(_network(query.body)), 404)


async def _changed(change: Awaitable[str], refused: int) -> ApiAnswer:
    try:
        changes = await change
    except BanError as problem:
        raise RefusedError(refused, str(problem)) from None
    return ApiAnswer.done(changes)


def _network(body: Mapping[str, Any]) -> IPNetwork:
    written = body.get("network")
    if written is None:
        raise RefusedError(400, 'network is missing: send for example {"network": "192.0.2.7"}')
    try:
        return banned_network(written)
    except ValueError:
        raise RefusedError(400, f"network: {no_network(written[:60])}") from None
