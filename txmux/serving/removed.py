"""Connections of what the rules do not have any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from txmux.rules.model import Rules
    from txmux.tcp.served import Served


def removed(
    connections: Iterable[Served],
    rules: Rules,
    number: int,
    routes: Collection[str],
    backends: Collection[str],
) -> list[Served]:
    """Find the connections of routes and backends that were removed.

    Args:
        connections: All that there are.
        rules: Those that hold now; what has come back in the meantime is not removed.
        number: Of the rules that removed them; who was accepted later does not belong to these routes.
        routes: Their names.
        backends: Their names.
    """
    gone = {*routes} - {route.name for route in rules.routes}
    gone_backends = {*backends} - {*rules.backends}
    return [
        one
        for one in connections
        if one.configuration.version < number
        and (one.record.route in gone or one.record.backend in gone_backends)
    ]
