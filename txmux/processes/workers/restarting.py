"""Restart delays, and descriptions of exit statuses."""

import os
import signal

import attrs


@attrs.define
class BackOff:
    """Restart delays in seconds: zero after a life of at least `settled`; after short ones they double, from `first` to `longest`."""

    first: float = 1.0
    longest: float = 30.0
    settled: float = 30.0
    _next: float = attrs.field(default=0.0, init=False)

    def delay(self, lived: float) -> float:
        delay = 0.0 if lived >= self.settled else self._next
        self._next = min(max(self.first, 2 * delay), self.longest)
        return delay


def how_ended(status: int | None) -> str:
    """Describe the end of a process by its status from `os.waitpid`, if that is known."""
    if status is None:
        return "ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by signal {number} ({signal.Signals(number).name})"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"
