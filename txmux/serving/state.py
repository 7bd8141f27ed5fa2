"""The state that one process hands to the next, beside the sockets: what it has found out and counted.

It is an object of JSON with a section for each kind of thing. Unknown sections and names are ignored, and what
is missing is as at a start. So each version can add some, and processes of different versions understand each other.

===========  ================================================================================================
section      what is in it
===========  ================================================================================================
version      of the whole; it changes only if overlooking is not enough
rules        which version there is, and the last reload: see `txmux.processes.upgrade.record`
servers      how each server is: see `txmux.backends.pool.server_health.ServerHealth.as_json`
names        the addresses of names: see `txmux.backends.names.resolve.Names.as_json`
wanted       what an operator wants beside the rules: see `txmux.control.overrides`
bans         who may not come in: see `txmux.access.bans.Bans.as_json`; a worker is sent them by ``banned``, see `Row` there
networks     what is in networks that change while the rules hold: see `txmux.access.lists.current.Lists.contents`
connections  those that limits count, which will be handed over: see `txmux.access.across_processes.SharedLimits.as_json`
history      what was measured in the last minutes: see `txmux.control.rates.Rates.as_json`
sources      by listeners, the buckets of rates: see `SourceTable.buckets`; in base64
===========  ================================================================================================
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeAlias

from txmux.backends.pool.server_health import MemberState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.access.per_source import PerSource
    from txmux.tcp.listener import MuxFactory

__all__ = [
    "TransferState",
    "build_state",
    "found_by_checks",
    "merged",
    "restore_sources",
    "sources_of",
]

TransferState: TypeAlias = "dict[str, Any]"

_VERSION = 1
_WORST = {MemberState.UP.value: 0, MemberState.EJECTED.value: 1, MemberState.DOWN.value: 2}


def build_state(
    servers: Iterable[dict[str, Any]],
    sources: Mapping[str, PerSource | None],
    overrides: Mapping[str, Any],
    networks: Mapping[str, Any],
) -> dict[str, Any]:
    """Put together what there is to tell.

    Args:
        servers: How they are.
        sources: What counts the sources of clients, by listeners.
        overrides: What an operator has set.
        networks: What is in those that change.
    """
    return {
        "version": _VERSION,
        "networks": {**networks},
        "servers": [*servers],
        "wanted": {**overrides},
        "sources": {
            name: base64.b64encode(one.buckets()).decode()
            for name, one in sources.items()
            if one is not None
        },
    }


def sources_of(factories: Iterable[MuxFactory]) -> dict[str, PerSource | None]:
    """Return what counts the sources of clients, by listeners."""
    configurations = [factory.configuration for factory in factories]
    return {one.settings.name: one.admission.per_source for one in configurations}


def restore_sources(state: TransferState, sources: Mapping[str, PerSource | None]) -> None:
    """Continue the rates of sources of another process."""
    for name, buckets in state.get("sources", {}).items():
        one = sources.get(name)
        if one is not None:
            one.restore(base64.b64decode(buckets))


def merged(found: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Make one of what several processes have found of the same servers: of each the worst, the turns of the first, and all connections.

    Each process counts failed connections by itself, so a server that one of them leaves alone is left alone by all that come after them.
    """
    servers: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in (one for several in found for one in several):
        key = (entry["backend"], entry["server"], entry["target"])
        known = servers.get(key)
        if known is None:
            servers[key] = {**entry}
            continue
        turns = {name: known[name] for name in ("credit", "contrary")}
        count = known.get("connections", 0) + entry.get("connections", 0)
        worst = max(known, entry, key=_badness)
        servers[key] = {**worst, **turns, "connections": count}
    return [*servers.values()]


def _badness(entry: Mapping[str, Any]) -> tuple[int, float, int]:
    return _WORST.get(entry["state"], 0), entry["out"], len(entry["failed"])


def found_by_checks(servers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what connections have found: a parent of workers has none, and would never know when it is over."""
    return [
        {**entry, "failed": (), "out": 0.0, "credit": 0}
        | (
            {}
            if entry["state"] == MemberState.DOWN.value
            else {"state": MemberState.UP.value, "why": ""}
        )
        for entry in servers
    ]
