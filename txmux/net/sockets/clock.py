"""The time that timers go by."""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_time(reactor: Any) -> None:
    """Make a reactor, and all that asks it for the time, use a clock that is never set.

    Twisted's own choice is the time of day: when it is set forward, everything runs out at once, and when it is set back,
    nothing does.

    Args:
        reactor: The process's own. If something has been scheduled already, it keeps its clock.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
