"""One epoll object for all sockets that are served beside the reactor, and that is itself one reader in it.

One wake-up of any reactor then serves a whole batch of sockets, without what the reactor does for each (epoll(7)). Workers have a
reactor that shares its epoll object instead, see `txmux.net.sockets.reactor`.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.net.sockets.memory import MEMORY

FINISHED, WRITE, ERROR = 0x2000, 4, 8  # EPOLLRDHUP, EPOLLOUT and EPOLLERR
READ, TROUBLE = 1 | FINISHED, ERROR | 16  # EPOLLIN with EPOLLRDHUP, and EPOLLERR with EPOLLHUP
BATCH = 32  # sockets that are served before the reactor has its turn: timers, signals, other descriptors

_log = Logger()
POLLERS: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


def is_available() -> bool:
    return hasattr(select, "epoll")


def after_turn(reactor: Any) -> Callable[[Callable[[], None]], None] | None:
    return Poller.for_reactor(reactor).after_turn if is_available() else None


@implementer(IReadDescriptor)
class Poller:
    """Reports to handlers what their sockets are ready for; level-triggered.

    An event may be out of date when its handler is called: the handler must ask its socket.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._epoll: Any = None
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._last: list[Callable[[], None]] = []
        self._polling = False
        # Descriptors that a handler has begun to watch, or to watch for something else: their events of this batch are
        # those of a socket that had the number before, or of what is no longer waited for.
        self._outdated: set[int] = set()

    @classmethod
    def for_reactor(cls, reactor: Any) -> Poller:
        poller = POLLERS.get(reactor)
        if poller is None:
            poller = POLLERS[reactor] = cls(reactor)
        return poller

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Begin to watch a descriptor, or replace its events and handler; `TROUBLE` is always reported.

        Raises:
            OSError: The system lacks what it takes (ENOSPC, ENOMEM, EMFILE); then the descriptor is not watched.
            MemoryError: So does this process.
        """
        before = self._events.get(descriptor)
        if before is None:
            self.start_watching(descriptor, events, handler)
            return
        if before != events:
            self._epoll.modify(descriptor, events)
            self._outdated.add(descriptor)  # a paused port must not accept a client
        self._handlers[descriptor] = handler
        self._events[descriptor] = events

    def start_watching(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Do as `watch` for a descriptor that is certainly not watched."""
        try:
            # First what may take memory: events of a registered descriptor without a handler would be lost.
            self._handlers[descriptor] = handler
            self._events[descriptor] = events
            if self._epoll is None:
                self._open_epoll()
            self._outdated.add(descriptor)
            self._epoll.register(descriptor, events)
        except (OSError, MemoryError):
            self._handlers.pop(descriptor, None)
            self._events.pop(descriptor, None)
            self._stop_if_unused()
            raise

    def _open_epoll(self) -> None:
        self._epoll = select.epoll()
        try:
            self.reactor.addReader(self)
        except (OSError, MemoryError):
            self._epoll.close()
            self._epoll = None
            raise

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)
        self._events[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        if self._events.pop(descriptor, None) is not None:
            del self._handlers[descriptor]
            self._epoll.unregister(descriptor)
            if not self._handlers:
                self._stop_if_unused()

    def closing(self, descriptor: int) -> None:
        """Stop watching a descriptor that is closed next: closing takes it out of the epoll object."""
        if self._events.pop(descriptor, None) is not None:
            del self._handlers[descriptor]
            if not self._handlers:
                self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if not self._handlers and not self._polling and self._epoll is not None:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    def after_turn(self, call: Callable[[], None]) -> None:
        self._last.append(call)
        if not self._polling and len(self._last) == 1:
            self.reactor.callFromThread(self._finish)

    def _finish(self) -> None:
        while self._last:
            last, self._last = self._last, []
            self._soon.extend(last)
            self._call_all_soon()

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)
        if not self._polling and len(self._soon) == 1:
            self.reactor.callFromThread(self._call_all_soon)

    def _call_all_soon(self) -> None:
        while self._soon:
            call = self._soon.popleft()
            try:
                call()
            except Exception as problem:  # noqa: BLE001 - the others must still be called
                _report(problem, "a socket's handler raised")

    # What the reactor asks for.

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def doRead(self) -> None:
        self.serve_ready(0)
        if not self._handlers:
            self._stop_if_unused()

    def serve_ready(self, timeout: float | None) -> None:
        """Serve a batch of what is ready; never raises, or a reactor would not ask again."""
        try:
            batch = self._epoll.poll(timeout, BATCH)
            self._polling = True
            self._serve(batch)
            if self._last:
                self._finish()
        except Exception as problem:  # noqa: BLE001 - out of memory, even to log that; what is ready is reported again
            _report(problem, "sockets could not be served")
        finally:
            self._polling = False

    def _serve(self, batch: Sequence[tuple[int, int]]) -> None:
        handlers, soon, outdated = self._handlers, self._soon, self._outdated
        outdated.clear()
        for descriptor, events in batch:
            if descriptor in outdated:
                continue
            handler = handlers.get(descriptor)
            try:
                if handler is not None:
                    handler(events)
                else:
                    self._serve_other(descriptor, events)
            except Exception as problem:  # noqa: BLE001 - one socket's failure must not affect the others
                _report(problem, "a socket's handler raised")
            if soon:
                self._call_all_soon()

    def _serve_other(self, descriptor: int, events: int) -> None:
        pass  # it has been closed in this batch

    def logPrefix(self) -> str:
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        pass  # the sockets' owners close them when the reactor stops


def _report(problem: Exception, what: str) -> None:
    if isinstance(problem, MemoryError):
        MEMORY.report_shortage()
        return
    with contextlib.suppress(Exception):  # there may be no memory left for it
        _log.failure(what)
