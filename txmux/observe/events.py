"""What happens in a process, told to whoever listens. It costs next to nothing while nobody does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from txmux.observe.access_log import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.observe.record import ConnectionRecord

    Event = dict[str, Any]
    Sink = Callable[[Event], object]

__all__ = ["MOST", "Events", "Sampling", "server_event"]

MOST = 100
"""Events of connections in a second. Of more, the first ones are told, and how many were skipped."""


class Sampling:
    """Passes on no more events than anybody can read.

    Args:
        seconds: Tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._begun = 0.0
        self._told = self._skipped = 0

    def pass_on(self, event: Event, sink: Sink) -> None:
        """Pass an event on, unless there were too many in this second."""
        now = self._seconds()
        if now - self._begun >= 1.0:
            skipped = self._skipped
            self._begun, self._told, self._skipped = now, 0, 0
            if skipped:
                sink({"event": "skipped", "at": time.time(), "count": skipped})
        if self._told < MOST:
            self._told += 1
            sink(event)
        else:
            self._skipped += 1


class Events:
    """What happens to connections and servers.

    Args:
        seconds: Tells the time.

    Attributes:
        wanted: Whether anybody listens; to be asked first.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._sampling = Sampling(seconds)
        self._sink: Sink | None = None
        self.wanted = False

    def listen(self, sink: Sink | None) -> None:
        """Tell events to somebody, or with ``None`` to nobody any more."""
        self._sink = sink
        self.wanted = sink is not None

    def begun(self, record: ConnectionRecord) -> None:
        """Tell of a client that was accepted."""
        self._tell("begin", {name: getattr(record, name) for name in _KNOWN_FIRST})

    def decided(self, record: ConnectionRecord) -> None:
        """Tell of a connection of which it is known where it is led."""
        told = {name: getattr(record, name) for name in (*_KNOWN_FIRST, "route")}
        told["detect_ms"] = None if record.detect_ms is None else round(record.detect_ms, 1)
        self._tell("decide", {**told, "facts": dict(record.facts)})

    def ended(self, record: ConnectionRecord) -> None:
        """Tell of a connection that is over, as the access log does."""
        self._tell("end", fields_of(record))

    def server(self, event: Event) -> None:
        """Tell of a server that has changed its state; these are never skipped."""
        if self._sink is not None:
            self._sink(event)

    def _tell(self, kind: str, values: Event) -> None:
        if self._sink is not None:
            self._sampling.pass_on({"event": kind, "at": time.time(), **values}, self._sink)


_KNOWN_FIRST = ("id", "listener", "client", "local")


def server_event(
    backend: str, server: str, address: str, before: str, state: str, why: str
) -> Event:
    """Make the event of a server that has changed its state."""
    return {
        "event": "server",
        "at": time.time(),
        "backend": backend,
        "server": server,
        "address": address,
        "before": before,
        "state": state,
        "why": why,
    }
