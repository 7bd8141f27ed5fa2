"""How a process ended, in words."""

from __future__ import annotations

import signal
from typing import Any


def how_ended(ending: Any) -> str:
    """Say it.

    Args:
        ending: What a `ProcessProtocol` is told.
    """
    if ending.signal is None:
        return f"ended by itself with exit status {ending.exitCode}"
    return f"was ended by signal {ending.signal} ({signal.Signals(ending.signal).name})"
