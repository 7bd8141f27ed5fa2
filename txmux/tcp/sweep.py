"""One timer for all connections of a listener that have no stage object."""

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.net.relay.interface import MARGIN

_PERIOD = MARGIN / 2
"""Seconds between two checks of a connection, which gets a stage, with its own timers, `MARGIN` before a deadline."""
_AT_ONCE = 1000  # connections that are checked in one turn of the reactor


class Sweep:
    """Checks each of these connections once a second, as long as there are any.

    Args:
        on_idle: Called when there are none left.
    """

    def __init__(
        self, clock: IReactorTime, connections: Collection[Any], on_idle: Callable[[], object]
    ) -> None:
        self._clock, self._connections, self._on_idle = clock, connections, on_idle
        self.timer: IDelayedCall | None = None

    def begin(self) -> None:
        self.timer = self._clock.callLater(_PERIOD, self._check, [])

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _check(self, left: list[Any]) -> None:
        left = left or [each for each in self._connections if each.transport is None]
        these, left = left[:_AT_ONCE], left[_AT_ONCE:]
        self.timer = None
        if not self._connections:
            self._on_idle()
            return
        self.timer = self._clock.callLater(0 if left else _PERIOD, self._check, left)
        now = self._clock.seconds()
        for connection in these:
            connection.check(now)
