"""What is told of a service that runs, for ``/api/status``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from txmux.rules.model.files import OPTIONS
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.store import shown
from txmux.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Mapping, Sequence

    from txmux.control.interface import Report
    from txmux.control.rates import Traffic
    from txmux.rules.model import Listener, Rules

__all__ = ["overview"]


def overview(
    rules: Rules,
    counted: Sequence[Mapping[str, Any]],
    *,
    started: float,
    last_reload: tuple[float, Report] | None,
    draining: bool,
    sockets: Mapping[str, socket.socket],
    shut: Collection[str],
    traffic: Traffic,
) -> dict[str, Any]:
    """Put together how a service is.

    Args:
        rules: Those in force.
        counted: What each tells that serves: the one under these rules first, those that keep old connections after it.
        started: When the service was, in seconds since 1970.
        last_reload: When the rules were last asked to be read again, in seconds since 1970, and what came of it.
        draining: Whether it stops.
        sockets: Those that listen, by the keys of their places; none after the service has stopped to accept.
        shut: Names of listeners whose clients are left in the queues of their sockets.
        traffic: What comes by them.
    """
    # During grace the sockets are still there.
    is_closed = draining and not sockets
    workers = [worker for one in counted for worker in one.get("workers", ())]
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started": started,
        "generation": counted[0]["generation"] if counted else 0,
        "workers": workers,
        "listeners": [
            _listener(listener, sockets, accepting=not is_closed and listener.name not in shut)
            for listener in rules.listeners
        ],
        "connections": {
            "active": sum(one["active"] for one in counted),
            "undecided": sum(one["undecided"] for one in counted),
            "total": traffic.total,
            "limit": rules.settings.max_connections,
        },
        "rates": dict(traffic.rates),
        "last_reload": _told(last_reload),
        "draining": draining,
        "rules_path": _path(rules),
        "rules_sha256": rules.files.sha256,
    }


def _listener(
    listener: Listener, sockets: Mapping[str, socket.socket], *, accepting: bool
) -> dict[str, Any]:
    places = listen_addresses(listener)
    opened = [sockets.get(place.key) for place in places]
    return {
        "name": listener.name,
        "endpoints": [place.text for place in places],
        # Twisted alone knows those that are not plain.
        "addresses": [
            shown(place.key, one) if one else place.text
            for place, one in zip(places, opened, strict=True)
        ],
        "accepting": accepting,
    }


def _told(last_reload: tuple[float, Report] | None) -> dict[str, Any] | None:
    if last_reload is None:
        return None
    when, report = last_reload
    return {
        "time": when,
        "ok": report.ok,
        "changes": report.changes,
        "errors": list(report.errors),
    }


def _path(rules: Rules) -> str:
    path = str(rules.path)
    return path if path == OPTIONS else os.path.abspath(path)  # noqa: PTH100 - links stay
