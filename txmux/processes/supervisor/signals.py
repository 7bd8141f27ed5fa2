"""Handles signals while the reactor runs."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from txmux.classes import define
from txmux.processes.held_signals import release_signals

_BOTH = 1.0
"""Seconds in which a signal that is sent to both processes of an upgrade comes to the second one."""


@define(eq=False, slots=False)
class SignalWatch:
    """Calls a function in the reactor when a signal arrives, or has been held until now; `stop` restores the previous handler.

    Only the main thread can handle signals; in any other this does nothing.

    Args:
        pass_on: Passes the signal on to the process that has replaced this one; returns whether there is one.
    """

    _reactor: Any
    _action: Callable[[], object]
    _number: int
    _pass_on: Callable[[int], bool] = lambda _: False
    _before: Any = attrs.field(default=None, init=False)
    _is_watching = False

    def start(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(self._number, self._arrived)
            self._is_watching = True
            release_signals(self._number)

    def stop(self) -> None:
        """Stop watching, unless the reactor stops, too: by default, the signal would end what is left of the process."""
        if self._is_watching and not is_stopping(self._reactor):
            self._is_watching = False
            # A handler that was not set from Python is unknown, and cannot be put back.
            before = signal.SIG_DFL if self._before is None else self._before
            signal.signal(self._number, before)

    def _arrived(self, number: int, _: object) -> None:
        # At once, since after the end of the reactor nothing else is.
        if not self._pass_on(number):
            self._reactor.callFromThread(self._action)


def is_stopping(reactor: Any) -> bool:
    return bool(getattr(reactor, "running", False) and getattr(reactor, "_stopped", False))


def stop_by_quit() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class StopSignals:
    """Distinguishes the signal that stops a service from further ones that hurry it.

    The first signal goes to the reactor, or another previous handler. Signals during shutdown go to the service, and so do
    those between the first one and the reactor's reaction to it, since stopping the reactor twice is an error.

    Attributes:
        hurry: Called in the reactor by a signal during shutdown; ``None`` while the service runs.
        is_urgent: Whether a further signal arrived before the service started to end connections.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._handlers: dict[int, Any] = {}
        self._trigger: Any = None
        self._is_watching = False
        self._is_handling = False
        self._ignored_until = 0.0
        self.hurry: Callable[[], object] | None = None
        self.is_urgent = False

    def start(self) -> None:
        """Watch, as soon as the reactor has its own handlers."""
        self._is_watching = True
        self.hurry, self.is_urgent = None, False
        self._forget_trigger()
        self._trigger = self._reactor.callWhenRunning(self._watch)

    def _forget_trigger(self) -> None:
        # A reactor that never runs would keep this object alive.
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    def _watch(self) -> None:
        self._trigger = None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # Before ours is set, since a signal may arrive right after.
                self._handlers[number] = signal.getsignal(number)
                signal.signal(number, self._arrived)

    def stop(self) -> None:
        """Stop watching, unless the reactor stops, too: then signals are ignored."""
        self._is_watching = False
        self._forget_trigger()
        self.hurry = lambda: None
        if not self._is_reactor_stopping():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._arrived:  # and no other handler by now
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    async def wait(self, seconds: float) -> None:
        """Wait for the grace period after a signal to stop; a further signal ends it."""
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

    def stop_reactor(self, *, is_both: bool = False) -> None:
        """Stop the reactor, unless it stops already. With `is_both`, a signal that follows may be the one that another process has had."""
        if not self._is_reactor_stopping():
            self._ignored_until = time.monotonic() + _BOTH * is_both
            with suppress(ReactorNotRunning):
                self._reactor.stop()

    def _is_reactor_stopping(self) -> bool:
        # Also true between the signal and the next turn of the reactor.
        is_signalled = getattr(self._reactor, "_exitSignal", None) is not None
        return is_signalled or is_stopping(self._reactor)

    def _arrived(self, number: int, frame: Any) -> None:
        # Before anything is called, where a further one may come.
        is_further, self._is_handling = self._is_handling, True
        try:
            self._handle(number, frame, is_further=is_further)
        finally:
            self._is_handling = is_further

    def _handle(self, number: int, frame: Any, *, is_further: bool) -> None:
        handler, is_stopping = self._handlers[number], self._is_reactor_stopping()
        if time.monotonic() < self._ignored_until:
            self._ignored_until = 0.0
        elif self.hurry is not None and (self._is_watching or is_stopping):
            self._reactor.callFromThread(self.hurry)
        elif is_stopping or is_further:
            self.is_urgent = True
        elif callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
