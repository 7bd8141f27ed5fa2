"""Ending connections at even distances, so that not all of their clients come back at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IDelayedCall

    from txmux.frontend.served import Served

_STEPS = 100
"""The most moments at which some are ended."""


def end_by_and_by(
    reactor: Any, connections: Iterable[Served], seconds: float
) -> list[IDelayedCall]:
    """End connections that are not over by then; the last after this many seconds. Gives the timers."""
    left = [*connections]
    steps = min(len(left), _STEPS)

    def end(step: int) -> None:
        for one in left[step::steps]:
            if one.record.reason is None:
                one.end("drained")

    return [reactor.callLater(seconds * (step + 1) / steps, end, step) for step in range(steps)]
