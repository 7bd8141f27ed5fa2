"""Ends the connections of routes and backends that a reload has removed, with `drain_removed`."""

import time
from typing import Any

import attrs

from txmux.classes import define
from txmux.net.channel import messages
from txmux.processes.supervisor.pool import WorkerPool
from txmux.rules.model import Rules
from txmux.serving.ending import forget_restored


@define(eq=False)
class RemovedRoutes:
    """What is gone, and when its connections end: in whichever workers they are by then.

    Attributes:
        rows: The times, on the clock that all processes share, and the fields of `END_REMOVED`.
    """

    _pool: WorkerPool
    rows: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list, init=False)

    def end_later(self, seconds: float, gone: dict[str, Any]) -> None:
        self.rows.append((time.monotonic() + seconds, gone))

    def commit(self, rules: Rules) -> None:
        forget_restored([gone for _, gone in self.rows], rules)

    def look(self) -> None:
        """Called each second."""
        now, rows = time.monotonic(), self.rows
        self.rows = [(until, gone) for until, gone in rows if until > now]
        for until, gone in rows:
            if until <= now:
                self._pool.send_to_all(messages.END_REMOVED, **gone)
