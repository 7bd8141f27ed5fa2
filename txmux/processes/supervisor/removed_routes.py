"""Ends the connections of routes and backends that a reload has removed, with `drain_removed`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from txmux.classes import define
from txmux.net.channel import messages
from txmux.processes.supervisor.pool import WorkerPool
from txmux.rules.model import Rules


@define(eq=False)
class RemovedRoutes:
    """What is gone, and when its connections end: in whichever workers they are by then.

    Attributes:
        rows: The times, on the clock that all processes share, and the fields of `END_REMOVED`.
    """

    _pool: WorkerPool
    _rules: Callable[[], Rules]
    rows: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list, init=False)

    def end_later(self, seconds: float, gone: dict[str, Any]) -> None:
        # What has been back meanwhile has the whole time again.
        rows = [(until, _without(before, gone)) for until, before in self.rows]
        self.rows = [*rows, (time.monotonic() + seconds, gone)]

    def look(self) -> None:
        """Called each second."""
        now, rows = time.monotonic(), self.rows
        self.rows = [(until, gone) for until, gone in rows if until > now]
        for until, gone in rows:
            if until <= now:
                # Workers of the process before an upgrade do not know what is back.
                rules = self._rules()
                here = {"routes": {its.name for its in rules.routes}, "backends": rules.backends}
                self._pool.send_to_all(messages.END_REMOVED, **_without(gone, here))


def _without(row: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    names = {}
    for kind in ("routes", "backends"):
        known = {*others[kind]}
        names[kind] = [name for name in row[kind] if name not in known]
    return {**row, **names}
