"""One timer for all usual connections of a listener."""

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.backends.upstream import MARGIN

_PERIOD = MARGIN / 2
"""Seconds between two looks at a connection, which is expanded `MARGIN` before a deadline: the fuller one has timers of its own."""
_AT_ONCE = 1000  # connections that are looked at in one turn of the reactor


class Sweep:
    """Looks at each of the usual connections of a listener once a second, as long as there are some."""

    def __init__(self, clock: IReactorTime, connections: Collection[Any], usual: type) -> None:
        self._clock, self._connections, self._usual = clock, connections, usual
        self.timer: IDelayedCall | None = None

    def begin(self) -> None:
        self.timer = self._clock.callLater(_PERIOD, self._look, [])

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _look(self, left: list[Any]) -> None:
        left = left or [one for one in self._connections if isinstance(one, self._usual)]
        these, left = left[:_AT_ONCE], left[_AT_ONCE:]
        self.timer = None
        if these:
            self.timer = self._clock.callLater(0 if left else _PERIOD, self._look, left)
        now = self._clock.seconds()
        for one in these:
            one.look(now)
