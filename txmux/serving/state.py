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

__all__ = ["Told", "found_by_checks", "merged", "restore_sources", "sources_of", "state_of"]

Told: TypeAlias = "dict[str, Any]"

_VERSION = 1
_WORST = {MemberState.UP.value: 0, MemberState.EJECTED.value: 1, MemberState.DOWN.value: 2}


def state_of(
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


def restore_sources(state: Told, sources: Mapping[str, PerSource | None]) -> None:
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
    for told in (one for several in found for one in several):
        key = (told["backend"], told["server"], told["target"])
        known = servers.get(key)
        if known is None:
            servers[key] = {**told}
            continue
        turns = {name: known[name] for name in ("credit", "contrary")}
        count = known.get("connections", 0) + told.get("connections", 0)
        worst = max(known, told, key=_badness)
        servers[key] = {**worst, **turns, "connections": count}
    return [*servers.values()]


def _badness(told: Mapping[str, Any]) -> tuple[int, float, int]:
    return _WORST.get(told["state"], 0), told["out"], len(told["failed"])


def found_by_checks(servers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what connections have found: a parent of workers has none, and would never know when it is over."""
    return [
        {**told, "failed": (), "out": 0.0, "credit": 0}
        | (
            {}
            if told["state"] == MemberState.DOWN.value
            else {"state": MemberState.UP.value, "why": ""}
        )
        for told in servers
    ]
