"""How a process ended, and how soon it is started again."""

from __future__ import annotations

import os
import signal

import attrs


@attrs.define
class BackOff:
    """At once after a long life; after short ones the waiting time doubles each time. Times are seconds.

    Attributes:
        first: The first waiting time that is not zero.
        longest: What it never exceeds.
        settled: A life that is long enough to forget what was before.
    """

    first: float = 1.0
    longest: float = 30.0
    settled: float = 30.0
    _next: float = attrs.field(default=0.0, init=False)

    def delay(self, lived: float) -> float:
        """Return how long to wait.

        Args:
            lived: How long the one that ended had lived.
        """
        delay = 0.0 if lived >= self.settled else self._next
        self._next = min(max(self.first, 2 * delay), self.longest)
        return delay


def how_ended(status: int | None) -> str:
    """Describe the end of a process.

    Args:
        status: As `os.waitpid` gives it; ``None`` if it is not known.
    """
    if status is None:
        return "ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    return f"ended by itself with exit status {os.waitstatus_to_exitcode(status)}"
