"""Acting on signals while the reactor runs."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable


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


class _WhenRunning:
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


class StopSignals:
    """Tells the signals that hurry a service from the one that stops it.

    The reactor, or another owner of a handler, is given the first signal. Those that come while the service
    stops are for the service, and so are those that come after the first one and before the reactor has acted on it: to the
    reactor it would be an error to be stopped again.

    Args:
        reactor: The process's own.

    Attributes:
        hurry: Is called, in the reactor, by a signal that comes while the service stops; ``None`` while it does not.
        is_urgent: Whether a further signal came before the service began to end connections.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._handlers: dict[int, Any] = {}
        self._when_running = _WhenRunning(reactor, self._watch)
        self._wanted = False
        self.hurry: Callable[[], object] | None = None
        self.is_urgent = False

    def start(self) -> None:
        """Watch, as soon as the reactor has its own handlers."""
        self._wanted = True
        self.hurry, self.is_urgent = None, False
        self._when_running.start()

    def _watch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # First, since a signal may come as soon as this one is there.
                self._handlers[number] = signal.getsignal(number)
                signal.signal(number, self._arrived)

    def stop(self) -> None:
        """Stop watching, unless the reactor stops, too: signals are ignored then."""
        self._wanted = False
        self._when_running.stop()
        self.hurry = _nothing
        if not self._is_reactor_told():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._arrived:  # and no other handler by now
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    async def wait(self, seconds: float) -> None:
        """Lets the service run for a grace period after a signal to stop; a further signal ends that."""
        if not seconds or self.is_urgent:
            return
        over: Deferred[None] = Deferred()
        self._log.info("clients are accepted for another {seconds:g} s", seconds=seconds)

        def hurry() -> None:
            self.is_urgent = True
            if call.active():
                call.reset(0)

        call = self._reactor.callLater(seconds, over.callback, None)
        self.hurry = hurry
        await over

    def _is_reactor_told(self) -> bool:
        """Return whether a signal has told the reactor to stop, which it may not have done yet."""
        return getattr(self._reactor, "_exitSignal", None) is not None

    def _arrived(self, number: int, frame: Any) -> None:
        handler, is_told = self._handlers[number], self._is_reactor_told()
        if self.hurry is not None and (self._wanted or is_told):
            self._reactor.callFromThread(self.hurry)
        elif is_told:
            self.is_urgent = True
        elif callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _nothing() -> None:
    """What signals do that come after the service has stopped."""
