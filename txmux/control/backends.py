"""The servers of the backends, as one process finds them, and as all do together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from txmux.backends.pool.server_health import AS_RULED, MemberState
from txmux.rules.model import backends_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from txmux.backends.upstreams import Upstreams
    from txmux.control.overrides import Overrides
    from txmux.rules.model import Rules, Server
    from txmux.telemetry.counting.snapshot import Counts, ServerTotals

__all__ = ["address_states", "backends_document"]

UNRESOLVED = "unresolved"
"""Of a server whose name has no address yet."""

_WORST_LAST = [
    state.value
    for state in (
        MemberState.UP,
        MemberState.PROBING,
        MemberState.EJECTED,
        MemberState.DOWN,
        MemberState.DRAIN,
        MemberState.MAINTENANCE,
        MemberState.DISABLED,
    )
]


def address_states(upstreams: Upstreams) -> list[dict[str, Any]]:
    """Return how each address of each server is in this process, as values of JSON."""
    now = time.time()
    return [
        {
            "backend": upstream.backend.name,
            "server": member.server.text,
            "address": member.target.text,
            "state": member.state.value,
            "why": member.why,
            "since": None if (age := upstream.pool.since(member)) is None else now - age,
            "weight": member.weight,
            "check": upstreams.last_check(upstream, member),
        }
        for upstream in upstreams.all()
        for member in upstream.pool.members
    ]


def backends_document(
    rules: Rules,
    counts: Counts,
    overrides: Overrides,
    found: Iterable[tuple[int | None, Sequence[Mapping[str, Any]]]],
    checked: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Report each backend and its servers, in the order of the rules.

    Args:
        rules: Those that hold.
        counts: Of all processes.
        overrides: What an operator has set.
        found: What each process with connections says of addresses, by the number of the worker.
        checked: What the process says that checks.
    """
    addresses: dict[tuple[str, str], dict[str, list[tuple[int | None, Mapping[str, Any]]]]] = {}
    for worker, told in found:
        for one in told:
            of = addresses.setdefault((one["backend"], one["server"]), {})
            of.setdefault(one["address"], []).append((worker, one))
    checks = {
        (one["backend"], one["server"], one["address"]): one["check"]
        for one in checked
        if one["check"] is not None
    }
    totals = {(one.backend, one.server): one for one in counts.servers}
    stale = counts.gauges.stale_ages()
    listed = []
    for backend in {one.name: one for one in backends_of(_outcomes(rules))}.values():
        servers = []
        for server in backend.servers:
            key = (backend.name, server.text)
            here = [
                {**_worst(address, seen), "check": checks.get((*key, address))}
                for address, seen in addresses.get(key, {}).items()
            ]
            servers.append(
                _server(server, here, totals.get(key), overrides, key, stale.get(key, ""))
            )
        listed.append({"name": backend.name, "servers": servers})
    return listed


def _outcomes(rules: Rules) -> list[Any]:
    return [*rules.backends.values(), *rules.outcomes()]


def _worst(address: str, seen: Sequence[tuple[int | None, Mapping[str, Any]]]) -> dict[str, Any]:
    """Report an address as the process finds it that finds it worst, and in which processes that is so."""
    worst = max(seen, key=lambda one: _WORST_LAST.index(one[1]["state"]))[1]
    alike = [number for number, one in seen if one["state"] == worst["state"]]
    where = ""
    if len(alike) < len(seen):
        where = f"worker {', '.join(str(number) for number in alike)}: "
    return {
        "address": address,
        "state": worst["state"],
        "why": f"{where}{worst['why']}",
        "since": worst["since"],
        "weight": worst["weight"],
    }


def _server(
    server: Server,
    addresses: Sequence[dict[str, Any]],
    totals: ServerTotals | None,
    overrides: Overrides,
    key: tuple[str, str],
    stale: str,
) -> dict[str, Any]:
    order = overrides.servers.get(key, AS_RULED)
    # Of several addresses one that is up is enough.
    best = min(addresses, key=lambda one: _WORST_LAST.index(one["state"]), default=None)
    told = best or {
        "state": UNRESOLVED,
        "why": "its name has no address yet",
        "since": None,
        "weight": server.weight,
        "check": None,
    }
    since = order.since if order.held is not None and not server.down else told["since"]
    return {
        "server": server.text,
        "state": told["state"],
        "why": "; ".join(filter(None, [told["why"] if best or not stale else "", stale])),
        "since": since,
        "weight": order.weight or server.weight,
        "backup": server.backup,
        "active": totals.active if totals else 0,
        "total": totals.total if totals else 0,
        "failed": sum(totals.failed.values()) if totals else 0,
        "failures": {cause: n for cause, n in totals.failed.items() if n} if totals else {},
        "check": told["check"],
        "addresses": list(addresses),
    }
