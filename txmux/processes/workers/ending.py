"""How a process ended, in words."""

from __future__ import annotations

import os
import signal


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
