"""The moment in which the reactor begins to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class WhenRunning:
    """Calls something as soon as the reactor runs. A reactor that never does would keep for good what waits for that.

    Args:
        reactor: The reactor.
        call: What is called.
    """

    def __init__(self, reactor: Any, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._call = call
        self._trigger: Any = None

    def start(self) -> None:
        """Wait for that moment; if it has come already, call at once."""
        self.stop()
        self._trigger = self._reactor.callWhenRunning(self._runs)

    def _runs(self) -> None:
        self._trigger = None
        self._call()

    def stop(self) -> None:
        """Wait no longer."""
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
