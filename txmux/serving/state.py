"""The state that a process hands to its successor, beside the sockets.

It is a JSON object of sections. Unknown sections and names are ignored; missing ones have their start values. So a
version can add some, and processes of different versions understand each other.

===========  ================================================================================================
section      contents
===========  ================================================================================================
version      of the format; it changes only if ignoring what is unknown is not enough
at           when it was collected, by the monotonic clock, which the times of bans and overrides are relative to
rules        the version of the rules, and the last reload: see `txmux.processes.upgrade.upgrades`
servers      the health of each server: see `txmux.backends.upstreams.Upstreams.as_json`
observed     servers that are failing or silent: see `txmux.backends.health.observer.ServerObserver.as_json`
names        the addresses of names: see `txmux.backends.names.resolve.NameResolver.as_json`
found_at     when they were last found: see `txmux.backends.names.resolve.NameResolver.found_at`
woken        when the servers of backends with waiting clients are started again: see `txmux.backends.upstreams.ServerStarter.as_json`
wanted       the operator's overrides: see `txmux.client.overrides`
files        which file each UNIX socket has: device and inode, by the key of the socket
pem          files for TLS of units that are in use and gone, as workers get them, of routes and of backends
units        the texts in force of files that patterns found, and of lists of networks that they name, of 16 MiB at most, by path
included     the paths of the files that each item of ``include`` matched
removed      routes and backends that are gone, and when their connections end: see `txmux.processes.supervisor.sent_rules`
passed       the keys of the sockets that systemd has opened, and has open itself
bans         banned clients: see `txmux.access.bans.Bans.state`; a worker receives them as ``banned``, see `Row` there
networks     contents of lists that change without a reload: see `txmux.access.dynamic_networks.Lists.contents`
limits       what is where in the memory of the limits: see `txmux.access.across_processes.SharedLimits.handed_over`
history      measurements of the last minutes: see `txmux.control.rates.Rates.as_json`
attention    what needs attention: see `txmux.control.control.Control.attention_state`
ended        workers that have ended: see `txmux.control.overrides.ServiceState.ended_workers`
recent       the last connections that did not end as they should: see `txmux.telemetry.recent.Recent.state`
sources      the rate buckets of each listener, in base64: see `SourceTable.buckets`
===========  ================================================================================================
"""

import base64
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from txmux.access.per_source import PerSource
from txmux.backends.pool.server_health import MemberState
from txmux.client.active_listener import ActiveListener

TransferState: TypeAlias = dict[str, Any]

VERSION = 1
_WORST = {MemberState.UP.value: 0, MemberState.EJECTED.value: 1, MemberState.DOWN.value: 2}


def buckets_of(sources: Mapping[str, PerSource | None]) -> dict[str, str]:
    return {
        name: base64.b64encode(limits.buckets()).decode()
        for name, limits in sources.items()
        if limits is not None
    }


def sources_of(listeners: Iterable[ActiveListener]) -> dict[str, PerSource | None]:
    configurations = [listener.configuration for listener in listeners]
    return {
        configuration.settings.name: configuration.admission.per_source
        for configuration in configurations
    }


def restore_sources(state: TransferState, sources: Mapping[str, PerSource | None]) -> None:
    for name, buckets in state.get("sources", {}).items():
        limits = sources.get(name)
        if limits is not None:
            limits.restore(base64.b64decode(buckets))


def merged(reports: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the reports of several processes on the same servers: the worst state, the turns of the first, the sum of connections.

    Each process counts failed connections by itself; a server that one of them has ejected is ejected in all their successors.
    """
    servers: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in itertools.chain.from_iterable(reports):
        key = (entry["backend"], entry["server"], entry["target"])
        so_far = servers.get(key)
        if so_far is None:
            servers[key] = {**entry}
            continue
        # Of all these, one process checks; in the others no check has been seen.
        turns = {"credit": so_far["credit"], "contrary": min(so_far["contrary"], entry["contrary"])}
        count = so_far.get("connections", 0) + entry.get("connections", 0)
        worst = max(so_far, entry, key=_badness)
        servers[key] = {**worst, **turns, "connections": count}
    return [*servers.values()]


def _badness(entry: Mapping[str, Any]) -> tuple[int, float, int]:
    return _WORST.get(entry["state"], 0), entry["out"], len(entry["failed"])


def found_by_checks(servers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the results of connections: the supervisor makes none, so it would never notice the end of an ejection."""
    return [
        {**entry, "failed": (), "out": 0.0, "credit": 0}
        | (
            {}
            if entry["state"] == MemberState.DOWN.value
            else {"state": MemberState.UP.value, "why": ""}
        )
        for entry in servers
    ]
