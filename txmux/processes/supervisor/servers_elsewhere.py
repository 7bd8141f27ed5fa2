"""Counts the connections to servers that stay in processes which accept no clients, for the limits of those which do."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from txmux.net.channel import messages
from txmux.processes.supervisor.pool import WorkerPool
from txmux.rules.model import Backend, Rules
from txmux.telemetry.counting.counters import Counters

_MOST = attrgetter("max_connections")


class ServersElsewhere:
    """Tells the workers that serve what retiring ones and processes of earlier upgrades have, by their counters.

    Each worker has the limits of servers and backends for itself, so each gets an equal part.
    """

    def __init__(
        self, pool: WorkerPool, counters: Counters, rules_in_force: Callable[[], Rules]
    ) -> None:
        self._pool = pool
        self._counters = counters
        self._rules_in_force = rules_in_force
        self._rules: Rules | None = None
        self._limited: list[Backend] = []
        self._sent: dict[int, list[dict[str, Any]]] = {}  # by the worker's process ID

    def share(self) -> None:
        """Send each worker its part, where it has changed; to be called each second, and before a worker accepts clients."""
        rules = self._rules_in_force()
        if rules is not self._rules:
            self._rules, self._limited = rules, [*filter(_is_limited, rules.every_backend())]
        leaving = self._pool.leaving
        workers = [one for one in self._pool.workers if one.ready and one not in leaving]
        if not workers or not (self._limited or any(self._sent.values())):
            return
        names = [
            (backend.name, server.text) for backend in self._limited for server in backend.servers
        ]
        counts = self._counters.connections_elsewhere(names, {worker.number for worker in leaving})
        sent, self._sent = self._sent, {}
        for place, worker in enumerate(workers):
            rows = [
                {"backend": backend, "server": server, "connections": part}
                for (backend, server), count in counts.items()
                if (part := (count + len(workers) - 1 - place) // len(workers))
            ]
            self._sent[worker.pid] = rows
            if rows != sent.get(worker.pid, []):
                worker.send(messages.EXPECT, servers=rows)


def _is_limited(backend: Backend) -> bool:
    return bool(backend.max_connections) or any(map(_MOST, backend.servers))
