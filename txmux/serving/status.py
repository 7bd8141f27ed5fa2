"""Reports on how a process serves: its connections, what is missing, and dry runs."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from twisted.logger import Logger

from txmux.backends.upstreams import Upstreams
from txmux.client.active_listener import ActiveListener
from txmux.client.served import Served
from txmux.rules.model import Backend, Outcome, Rules

_log = Logger()


def missing_in(rules: Rules, accepting: Collection[str], upstreams: Upstreams) -> list[str]:
    """Return what prevents clients from being served, one line each."""
    closed = [
        f"[listen {listener.name}]: no client is accepted"
        for listener in rules.listeners
        if listener.name not in accepting
    ]
    used = {backend.name: backend for backend in _used(rules)}
    idle = [
        f"[backend {name}]: no server is up"
        for name, backend in used.items()
        if not upstreams.upstream_of(backend).pool.has_server_up
    ]
    return closed + idle


def _used(rules: Rules) -> Iterator[Backend]:
    outcomes: list[Outcome | None] = [route.outcome for route in rules.routes]
    for listener in rules.listeners:
        outcomes += [*(line.outcome for line in listener.silent), listener.default]
    yield from (outcome for outcome in outcomes if isinstance(outcome, Backend))


def connection_counts(connections: Sequence[Served], version: int) -> dict[str, Any]:
    """Count the connections of a process, for ``/api/status``."""
    return {
        "generation": version,
        "active": len(connections),
        "undecided": sum(connection.record.detect_ms is None for connection in connections),
        "older": sum(connection.configuration.version < version for connection in connections),
    }


def log_draining(count: int, seconds: float) -> None:
    """Log the number of connections that drain, if any, and their time."""
    if count:
        _log.info(
            "draining connections: {count}, for up to {seconds:g} s; a second signal closes them at once",
            count=count,
            seconds=seconds,
        )


def log_dry_runs(listener: ActiveListener) -> None:
    """Log how many connections the dry-run routes of a listener would have taken."""
    configuration = listener.configuration
    for name, count in configuration.dry_runs:
        _log.info(
            "[route {name}] would have taken {count} {noun} of [listen {listener}]",
            name=name,
            count=count,
            noun="connection" if count == 1 else "connections",
            listener=configuration.settings.name,
        )
