"""Acting on signals while the reactor runs."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SignalWatch"]


class SignalWatch:
    """Calls something in the reactor when a signal comes; handlers that were there before are put back.

    Signals can be handled in the main thread only; in any other this does nothing.

    Args:
        reactor: Where the call is made.
        action: What is called.
        signals: Numbers of signals.
    """

    def __init__(self, reactor: Any, action: Callable[[], object], *signals: int) -> None:
        self._reactor = reactor
        self._action = action
        self._signals = signals
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Watch."""
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._before[number] = signal.signal(number, self._arrived)

    def stop(self) -> None:
        """Watch no longer."""
        for number, handler in self._before.items():
            # A handler that was not set from Python is unknown, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _arrived(self, *_: object) -> None:
        self._reactor.callFromThread(self._action)
