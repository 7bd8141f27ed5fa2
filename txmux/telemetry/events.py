"""What happens in a process, told to whoever listens. It costs next to nothing while nobody does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from txmux.telemetry.access_log import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txmux.telemetry.record import ConnectionRecord

    Event = dict[str, Any]
    Sink = Callable[[Event], object]

__all__ = ["MOST", "Events", "Sampling", "server_event"]

MOST = 100
"""Events of connections in a second. Of more, the first ones are told, and how many were skipped."""

_SECOND = 1.0


_KNOWN_FIRST = ("id", "listener", "client", "local")


class Sampling:
    """Passes on no more events than anybody can read.

    Args:
        clock: Tells the time, and when the second is over.
        sink: Is called with what is passed on.
    """

    def __init__(self, clock: IReactorTime, sink: Sink) -> None:
        self._clock = clock
        self._sink = sink
        self._begun = 0.0
        self._told = self._skipped = 0
        self._timer: IDelayedCall | None = None

    def pass_on(self, event: Event) -> None:
        """Pass an event on, unless there were too many in this second."""
        if self._clock.seconds() - self._begun >= _SECOND:
            self._next()
        if self._told < MOST:
            self._told += 1
            self._sink(event)
            return
        self._skipped += 1
        if self._timer is None:  # it may be quiet from now on
            self._timer = self._clock.callLater(_SECOND, self._next)

    def forget(self) -> None:
        """Begin anew, and tell nobody what was skipped."""
        self._begun = self._clock.seconds()
        self._told = self._skipped = 0
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _next(self) -> None:
        skipped = self._skipped
        self.forget()
        if skipped:
            self._sink({"event": "skipped", "at": time.time(), "count": skipped})


class Events:
    """What happens to connections and servers.

    Args:
        clock: Tells the time.

    Attributes:
        wanted: Whether anybody listens; to be asked first.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._sampling = Sampling(clock, self._send)
        self._sink: Sink | None = None
        self.wanted = False

    def listen(self, sink: Sink | None) -> None:
        """Send events to a listener; ``None`` ends that."""
        self._sink = sink
        self.wanted = sink is not None
        if sink is None:  # the next one who listens was not there when these were skipped
            self._sampling.forget()

    def begun(self, record: ConnectionRecord) -> None:
        self._tell("begin", {name: getattr(record, name) for name in _KNOWN_FIRST})

    def decided(self, record: ConnectionRecord) -> None:
        """Report a connection of which it is known where it is led."""
        told = {name: getattr(record, name) for name in (*_KNOWN_FIRST, "route")}
        told["detect_ms"] = None if record.detect_ms is None else round(record.detect_ms, 1)
        self._tell("decide", {**told, "facts": dict(record.facts)})

    def ended(self, record: ConnectionRecord) -> None:
        """Report a connection that is over, as the access log does."""
        self._tell("end", fields_of(record))

    def server(self, event: Event) -> None:
        """Report a server that has changed its state; these are never skipped."""
        self._send(event)

    def _tell(self, kind: str, values: Event) -> None:
        if self._sink is not None:
            self._sampling.pass_on({"event": kind, "at": time.time(), **values})

    def _send(self, event: Event) -> None:
        if self._sink is not None:
            self._sink(event)


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
