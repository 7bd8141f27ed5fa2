"""Connections that end later, and not all at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from txmux.tcp.served import Served

_STEPS = 100
"""The most moments at which some are ended."""


class Ending:
    """Ends the connections of a process when it is time.

    Args:
        reactor: Tells the time.
        connections: Gives those that are not over.
    """

    def __init__(self, reactor: Any, connections: Callable[[], Sequence[Served]]) -> None:
        self._reactor = reactor
        self._connections = connections
        self._calls: set[IDelayedCall] = set()

    def later(self, seconds: float, end: Callable[[], object]) -> None:
        """Call what ends some, unless `cancel` comes before."""

        def ring() -> None:
            self._calls.discard(call)
            end()

        call = self._reactor.callLater(seconds, ring)
        self._calls.add(call)

    def all_within(self, seconds: float, end_all: Callable[[], object]) -> None:
        """End all: in the second half of the time one after another, so that not all clients come back at once.

        Args:
            seconds: The time.
            end_all: Ends those that are left.
        """
        self.later(seconds / 2, partial(self._one_by_one, seconds / 2))
        self.later(seconds, end_all)

    def _one_by_one(self, seconds: float) -> None:
        left = [*self._connections()]
        steps = min(len(left), _STEPS)

        def end(step: int) -> None:
            for one in left[step::steps]:
                if one.record.reason is None:
                    one.end("drained")

        for step in range(steps):
            self.later(seconds * (step + 1) / steps, partial(end, step))

    def cancel(self) -> None:
        """End none any more."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
