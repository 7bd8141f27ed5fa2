"""An end that takes bytes no faster than at a rate: a token bucket before a socket, and before the poller that watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.classes import frozen
from txmux.net.sockets.poller import ERROR, WRITE, Poller

_BURST = 0.1  # seconds; what is not used in this time is lost
_TICK = 0.02  # seconds; shorter would cost more, and longer would be felt


@frozen
class RelayRates:
    """How fast a connection may be to and from the server, in bytes per second; ``None`` means no limit."""

    upload: int | None = None
    download: int | None = None


class PacedEnd:
    """Seems full while nothing may be sent; what is too fast waits with its sender.

    Args:
        below: A socket that does not block, or what has its methods.
        rate: Bytes per second.
        has_burst: Whether it begins with what may be sent at once after a pause, and not with nothing.
    """

    def __init__(
        self, below: Any, poller: Poller, clock: IReactorTime, rate: int, *, has_burst: bool
    ) -> None:
        self._below, self._poller, self._clock, self.rate = below, poller, clock, rate
        self.recv_into, self.shutdown = below.recv_into, below.shutdown
        self.call_soon, self.reactor = poller.call_soon, poller.reactor
        self._tick = max(_TICK, 1 / rate)
        # With less, what is earned while a timer is late would be lost.
        self._most = max(2.0, _BURST * rate)
        self._allowed = self._most if has_burst else 0.0
        self._counted_at = clock.seconds()
        self._events = 0
        self._timer: IDelayedCall | None = None  # until it expires, nothing may be sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def send(self, data: Any, flags: int = 0) -> int:
        if self._timer is not None:
            return 0
        now = self._clock.seconds()
        earned = (now - self._counted_at) * self.rate
        self._allowed = min(self._most, self._allowed + earned)
        self._counted_at = now
        count = min(len(data), int(self._allowed))
        is_cut = count < len(data)
        sent: int = self._below.send(data[:count], 0 if is_cut else flags) if count else 0
        self._allowed -= sent
        if is_cut and sent == count:
            self._timer = self._clock.callLater(self._tick, self._timer_expired)
            if self._events & WRITE:
                self._poller.change(self._descriptor, self._possible_events())
        return sent

    # As a poller.

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        def ready(its: int) -> None:
            # Only a send finds out whether anything still arrives, and it can be the last event.
            if its & ERROR:
                self._stop_timer()
                self._allowed = self._most
            handler(its)

        self._descriptor, self._events = descriptor, events
        self._poller.watch(descriptor, self._possible_events(), ready)

    def change(self, descriptor: int, events: int) -> None:
        self._events = events
        self._poller.change(descriptor, self._possible_events())

    def unwatch(self, descriptor: int) -> None:
        self._stop_waiting()
        self._poller.unwatch(descriptor)

    def closing(self, descriptor: int) -> None:
        self._stop_waiting()
        self._poller.closing(descriptor)

    def _possible_events(self) -> int:
        return self._events if self._timer is None else self._events & ~WRITE

    def _timer_expired(self) -> None:
        self._timer = None
        if self._events & WRITE:
            self._poller.change(self._descriptor, self._events)

    def _stop_waiting(self) -> None:
        self._events = 0
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
