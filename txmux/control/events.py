"""Events of all workers, for clients that follow them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall

from txmux.backends.upstreams import Upstreams
from txmux.classes import define
from txmux.control.broadcast import WorkerLink
from txmux.control.report import Report
from txmux.telemetry.events import Sampling

Follower = Callable[[dict[str, Any] | None], object]

_BEAT = 5.0
"""Keep-alive interval in seconds; workers that were started since then are subscribed to as well."""


@define(eq=False, slots=False)
class Hub:
    """Passes events of all workers on to followers; without a follower, workers send none."""

    _reactor: Any
    _processes: Callable[[], Sequence[WorkerLink]]
    _upstreams: Callable[[], Upstreams]
    followers: dict[object, Follower] = attrs.field(factory=dict, init=False)
    _beat: IDelayedCall | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        # What is skipped may be of several workers.
        self._sampling = Sampling(
            self._reactor, lambda event: self.publish({"worker": None, **event})
        )

    def subscribe(self, follower: Follower) -> Callable[[], None]:
        """Call a follower with each event, and now and then with ``None``; it must not raise. Return what ends that."""
        key = object()
        self.followers[key] = follower
        if self._beat is None:
            self._start_beat()

        def unsubscribe() -> None:
            if self.followers.pop(key, None) is not None and not self.followers:
                self._stop_beat()

        return unsubscribe

    def reloaded(self, report: Report) -> None:
        self.publish({"event": "reload", "at": time.time(), **report.as_json()})

    def report_stop(self) -> None:
        """Report that the service is shutting down, and end."""
        self.publish({"event": "stop", "at": time.time()})
        self.followers.clear()
        self._stop_beat()

    def _stop_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
            self._listen(on=False)
            self._sampling.forget()

    def _start_beat(self) -> None:
        self._beat = self._reactor.callLater(_BEAT, self._start_beat)
        self._listen(on=True)
        self.publish(None)

    def _listen(self, *, on: bool) -> None:
        for process in self._processes():
            process.listen(self._receiver_of(process.number) if on else None)
        self._upstreams().tell = self._receiver_of(None) if on else None

    def _receiver_of(self, worker: int | None) -> Callable[[dict[str, Any]], None]:
        def pass_on(event: dict[str, Any]) -> None:
            if self._beat is None:  # there is no follower, so nothing is to be counted
                return
            reported = {**event, "worker": worker}
            if event["event"] in {"begin", "decide", "end"}:
                self._sampling.pass_on(reported)
            else:
                self.publish(reported)

        return pass_on

    def publish(self, event: dict[str, Any] | None) -> None:
        for follower in [*self.followers.values()]:
            follower(event)
