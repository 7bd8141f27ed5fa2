"""Servers and listeners: how they are, for the table and the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from txmux.admin.page.map import MapServer
from txmux.admin.page.unrecognised import ago
from txmux.telemetry.present import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from txmux.admin.page.map import Health
    from txmux.admin.page.query import PageQuery

_HEALTH: Mapping[str, Health] = {
    "up": "up",
    "ready": "up",
    "drain": "drain",
    "maintenance": "drain",
    "down": "down",
    "ejected": "down",
}
_ACTIONS = (("Ready", "ready"), ("Drain", "drain"), ("Maintenance", "maintenance"))


@attrs.frozen
class ServerRow:
    """A line of the table of servers.

    Attributes:
        backend: Its name.
        name: The server's address.
        found: The addresses that its name or service has led to; nothing if it is an address itself.
        state: What it is, in a word.
        health: Its colour.
        why: What made it so.
        since: How long ago.
        weight: As set.
        active: Connections now.
        total: Connections so far.
        failed: Connections that could not be made.
        checks: What the last fifty checks found, oldest first.
        checks_told: The same for screen readers.
        last_check: The result of the last one.
        path: Where changes are posted to.
        actions: What can be done: label, and the state that it sets.
    """

    backend: str
    name: str
    found: str
    state: str
    health: Health
    why: str
    since: str
    weight: str
    active: str
    total: str
    failed: str
    checks: Sequence[bool]
    checks_told: str
    last_check: str
    path: str
    actions: Sequence[tuple[str, str]]


def health_of_state(state: str) -> Health:
    return _HEALTH.get(state, "down")


def server_rows(
    backends: Sequence[Mapping[str, Any]], query: PageQuery, now: float
) -> list[ServerRow]:
    """Return the servers that fit what is asked for.

    Args:
        backends: ``/api/backends``.
        query: What is asked for.
        now: Seconds since 1970.
    """
    return [
        _row(backend["name"], server, now)
        for backend in backends
        for server in backend["servers"]
        if query.fits(backend=backend["name"], server=server["server"])
    ]


def _row(backend: str, server: Mapping[str, Any], now: float) -> ServerRow:
    state, check = str(server["state"]), server.get("check") or {}
    checks = [bool(one) for one in check.get("history", ())]
    good = sum(checks)
    return ServerRow(
        backend,
        server["server"],
        _found(server),
        state,
        health_of_state(state),
        str(server.get("why") or ""),
        ago(now, server.get("since")),
        count(server.get("weight", 1)),
        count(server.get("active", 0)),
        count(server.get("total", 0)),
        count(server.get("failed", 0)),
        checks,
        f"{good} of the last {len(checks)} checks were good",
        _last(check),
        f"api/backends/{quote(backend, safe='')}/servers/{quote(server['server'], safe='')}",
        [(label, to) for label, to in _ACTIONS if to != (state if state in _STEERED else "ready")],
    )


_STEERED = {"drain", "maintenance"}
_MOST_SHOWN = 5


def _found(server: Mapping[str, Any]) -> str:
    found = [str(one["address"]) for one in server.get("addresses", ())]
    if not found or found == [server["server"]]:
        return ""
    more = len(found) - _MOST_SHOWN
    return ", ".join(found[:_MOST_SHOWN]) + (f" and {count(more)} more" if more > 0 else "")


def _last(check: Mapping[str, Any]) -> str:
    if not check or check.get("ok") is None:
        return ""
    took = check.get("duration_ms")
    result = str(check.get("result") or ("good" if check["ok"] else "bad"))
    return f"{result}, {took:.0f} ms" if took is not None else result


def map_servers(
    backends: Iterable[Mapping[str, Any]],
) -> dict[str, list[MapServer]]:
    """Return the servers for the map, by backend."""
    return {
        backend["name"]: [
            MapServer(
                server["server"],
                health_of_state(str(server["state"])),
                f"{server.get('active', 0)} active" if server.get("active") else "",
            )
            for server in backend["servers"]
        ]
        for backend in backends
    }
