"""One epoll object for all sockets that are served beside the reactor, and that is itself one reader in it.

One wake-up of any reactor then serves a whole batch of sockets, without what the reactor does for each (epoll(7)).
"""

from __future__ import annotations

import contextlib
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from txmux.net.sockets.memory import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

FINISHED, WRITE, ERROR = 0x2000, 4, 8  # EPOLLRDHUP, EPOLLOUT and EPOLLERR
READ, TROUBLE = 1 | FINISHED, ERROR | 16  # EPOLLIN with EPOLLRDHUP, and EPOLLERR with EPOLLHUP
_ROUNDS = 8  # polls of the epoll object before the reactor has its turn
_BATCH = 256
_LONGEST = 0.005  # seconds after which the reactor has its turn in any case: timers, signals, other descriptors

_log = Logger()
_pollers: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


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
        # What is left of a batch, the next one last. A closed descriptor is removed, or its event would go to the socket that gets
        # its number next. After a handler that took too long, the epoll object would report the same ones first again.
        self._left: dict[int, int] = {}

    @classmethod
    def for_reactor(cls, reactor: Any) -> Poller:
        poller = _pollers.get(reactor)
        if poller is None:
            poller = _pollers[reactor] = cls(reactor)
        return poller

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Begin to watch a descriptor, or replace its events and handler; `TROUBLE` is always reported.

        Raises:
            OSError: The system lacks what it takes (ENOSPC, ENOMEM, EMFILE); then the descriptor is not watched.
            MemoryError: So does this process.
        """
        before = self._events.get(descriptor)
        if before is None:
            self._start_watching(descriptor, events, handler)
            return
        if before != events:
            self._epoll.modify(descriptor, events)
            self._left.pop(descriptor, None)  # a paused port must not accept a client
        self._handlers[descriptor] = handler
        self._events[descriptor] = events

    def _start_watching(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        try:
            # First what may take memory: events of a registered descriptor without a handler would be lost.
            self._handlers[descriptor] = handler
            self._events[descriptor] = events
            if self._epoll is None:
                self._open_epoll()
            self._epoll.register(descriptor, events)
        except (OSError, MemoryError):
            self._handlers.pop(descriptor, None)
            self._events.pop(descriptor, None)
            if self._epoll is not None:
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
            self._left.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            if not self._handlers:
                self._stop_if_unused()

    def closing(self, descriptor: int) -> None:
        """Stop watching a descriptor that is closed next: closing takes it out of the epoll object."""
        if self._events.pop(descriptor, None) is not None:
            del self._handlers[descriptor]
            self._left.pop(descriptor, None)
            if not self._handlers:
                self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if not self._handlers and not self._polling:
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
        """Serve the sockets that are ready, for some milliseconds at most; never raises, or the reactor would not ask again."""
        try:
            self._serve_ready()
        except Exception as problem:  # noqa: BLE001 - out of memory, even to log that; what is ready is reported again
            _report(problem, "sockets could not be served")

    def _serve_ready(self) -> None:
        self._polling = True
        until = time.monotonic() + _LONGEST
        poll = self._epoll.poll
        try:
            for _ in range(_ROUNDS):
                if not self._left:
                    self._left = dict(reversed(poll(0, _BATCH)))
                if not self._left or not self._serve(until):
                    break
            self._finish()
        finally:
            self._polling = False
        if not self._handlers:
            self._stop_if_unused()

    def _serve(self, until: float) -> bool:
        handlers, soon, now = self._handlers, self._soon, time.monotonic
        left = self._left
        while left:
            descriptor, events = left.popitem()
            handler = handlers.get(descriptor)
            if handler is None:
                continue
            try:
                handler(events)
            except Exception as problem:  # noqa: BLE001 - one socket's failure must not affect the others
                _report(problem, "a socket's handler raised")
            if soon:
                self._call_all_soon()
            if now() > until:
                return False
        return True

    def logPrefix(self) -> str:
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        pass  # the sockets' owners close them when the reactor stops


def _report(problem: Exception, what: str) -> None:
    if isinstance(problem, MemoryError):
        MEMORY.lacks()
        return
    with contextlib.suppress(Exception):  # there may be no memory left for it
        _log.failure(what)
