"""Events of connections and servers for `/api/events`. They cost next to nothing while no client listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.telemetry.access_log import fields_of
from txmux.telemetry.record import ConnectionRecord

Event = dict[str, Any]
Sink = Callable[[Event], object]

MOST = 100  # events of connections in a second; more are only counted, as skipped

_SECOND = 1.0

_KNOWN_FIRST = ("id", "listener", "client", "local")


class Sampling:
    """Passes on at most `MOST` events a second."""

    def __init__(self, clock: IReactorTime, sink: Sink) -> None:
        self._clock = clock
        self._sink = sink
        self._begun = 0.0
        self._passed = self._skipped = 0
        self._timer: IDelayedCall | None = None

    def pass_on(self, event: Event) -> None:
        if self._clock.seconds() - self._begun >= _SECOND:
            self._next()
        if self._passed < MOST:
            self._passed += 1
            self._sink(event)
            return
        self._skipped += 1
        if self._timer is None:  # no further event may come
            self._timer = self._clock.callLater(_SECOND, self._next)

    def forget(self) -> None:
        """Begin a new second without reporting what was skipped."""
        self._begun = self._clock.seconds()
        self._passed = self._skipped = 0
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _next(self) -> None:
        skipped = self._skipped
        self.forget()
        if skipped:
            self._sink({"event": "skipped", "at": time.time(), "count": skipped})


class Events:
    """Makes events and sends them to the listener; callers check `has_listener` first, so that no event is made in vain.

    Attributes:
        on_decision: Called with each client that is decided; ``None`` if none follows decisions.
        sees_decisions: Whether `decided` does anything.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._sampling = Sampling(clock, self._send)
        self._sink: Sink | None = None
        self.has_listener = self.sees_decisions = False
        self.on_decision: Callable[[Any], object] | None = None

    def follow_decisions(self, on_decision: Callable[[Any], object] | None) -> None:
        self.on_decision = on_decision
        self.sees_decisions = self.has_listener or on_decision is not None

    def listen(self, sink: Sink | None) -> None:
        self._sink = sink
        self.has_listener = sink is not None
        self.sees_decisions = self.has_listener or self.on_decision is not None
        if sink is None:  # the next listener was not connected when these were skipped
            self._sampling.forget()

    def begun(self, record: ConnectionRecord) -> None:
        self._pass_on("begin", {name: getattr(record, name) for name in _KNOWN_FIRST})

    def decided(self, session: Any) -> None:
        if self.on_decision is not None:
            self.on_decision(session)
        if not self.has_listener:
            return
        record = session.record
        values = {name: getattr(record, name) for name in (*_KNOWN_FIRST, "route")}
        values["detect_ms"] = None if record.detect_ms is None else round(record.detect_ms, 1)
        self._pass_on("decide", {**values, "facts": dict(record.facts)})

    def ended(self, record: ConnectionRecord) -> None:
        self._pass_on("end", fields_of(record))

    def server(self, event: Event) -> None:
        self._send(event)  # never skipped

    def _pass_on(self, kind: str, values: Event) -> None:
        if self._sink is not None:
            self._sampling.pass_on({"event": kind, "at": time.time(), **values})

    def _send(self, event: Event) -> None:
        if self._sink is not None:
            self._sink(event)


def server_event(
    backend: str, server: str, address: str, before: str, state: str, why: str
) -> Event:
    return {
        "event": "server", "at": time.time(), "backend": backend, "server": server,
        "address": address, "before": before, "state": state, "why": why,
    }  # fmt: skip
