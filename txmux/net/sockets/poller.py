"""One epoll object for all sockets that are served beside the reactor, and that is itself one reader in it.

An epoll descriptor can be polled (epoll(7)), so it works in any reactor. One wake-up of the reactor then serves
a whole batch of sockets, without what the reactor does for each.
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

FINISHED, WRITE, ERROR = 0x2000, 4, 8
"""What a socket is ready for, as epoll has it: EPOLLRDHUP, EPOLLOUT and EPOLLERR."""
READ, TROUBLE = 1 | FINISHED, ERROR | 16
"""EPOLLIN with EPOLLRDHUP, and EPOLLERR with EPOLLHUP."""

_ROUNDS = 8  # so often is the epoll object asked before the reactor has its turn
_BATCH = 256
_LONGEST = 0.005  # seconds after which the reactor has its turn in any case: timers, signals, other descriptors

_log = Logger()
_pollers: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


def is_available() -> bool:
    return hasattr(select, "epoll")


def after_turn(reactor: Any) -> Callable[[Callable[[], None]], None] | None:
    """Return what calls something when all that is ready has been served; ``None`` where there is no such moment."""
    return Poller.of(reactor).after_turn if is_available() else None


@implementer(IReadDescriptor)
class Poller:
    """Tells sockets what they are ready for; level-triggered.

    A handler may be called for something that is no longer so, and must then do no harm: it asks its socket.

    Args:
        reactor: In which it is a reader while there is anything to watch.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._epoll: Any = None
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._last: list[Callable[[], None]] = []
        self._polling = False
        # What is left of a batch, the next one last. Whoever is closed is taken out, or what it was ready for would be told to the
        # next who gets its descriptor. After one that took too long, the epoll object would tell of the same ones first again.
        self._left: dict[int, int] = {}

    @classmethod
    def of(cls, reactor: Any) -> Poller:
        """Return the one poller of a reactor."""
        poller = _pollers.get(reactor)
        if poller is None:
            poller = _pollers[reactor] = cls(reactor)
        return poller

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Begin to watch a descriptor.

        Args:
            descriptor: It may be watched already; then the old handler is told nothing more.
            events: `READ`, `WRITE`, both, or 0 for nothing but `TROUBLE`, which is always told.
            handler: Is told what the descriptor is ready for.

        Raises:
            OSError: The system lacks what it takes (ENOSPC, ENOMEM, EMFILE); then the descriptor is not watched.
            MemoryError: So does this process.
        """
        before = self._events.get(descriptor)
        if before is None:
            self._begin_to_watch(descriptor, events, handler)
            return
        if before != events:
            self._epoll.modify(descriptor, events)
            self._left.pop(descriptor, None)  # a port that is paused must accept nobody
        self._handlers[descriptor] = handler
        self._events[descriptor] = events

    def _begin_to_watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        try:
            # First what may take memory: of a descriptor that is registered and has no handler, nobody would hear any more.
            self._handlers[descriptor] = handler
            self._events[descriptor] = events
            self._register(descriptor, events)
        except (OSError, MemoryError):
            self._handlers.pop(descriptor, None)
            self._events.pop(descriptor, None)
            if self._epoll is not None:
                self._stop_if_unused()
            raise

    def _register(self, descriptor: int, events: int) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            try:
                self.reactor.addReader(self)
            except (OSError, MemoryError):
                self._epoll.close()
                self._epoll = None
                raise
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Watch a descriptor for something else from now on."""
        self._epoll.modify(descriptor, events)
        self._events[descriptor] = events

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor, which stays open, no longer."""
        if self._events.pop(descriptor, None) is not None:
            del self._handlers[descriptor]
            self._left.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            self._stop_if_unused()

    def closing(self, descriptor: int) -> None:
        """Watch a descriptor no longer that is closed next: closing takes it out of the epoll object."""
        if self._events.pop(descriptor, None) is not None:
            del self._handlers[descriptor]
            self._left.pop(descriptor, None)
            self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if not self._handlers and not self._polling:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    def after_turn(self, call: Callable[[], None]) -> None:
        """Call something when all that is ready now has been served."""
        self._last.append(call)
        if not self._polling and len(self._last) == 1:
            self.reactor.callFromThread(self._finish)

    def _finish(self) -> None:
        while self._last:
            last, self._last = self._last, []
            self._soon.extend(last)
            self._catch_up()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call something as soon as whoever runs now has returned."""
        self._soon.append(call)
        if not self._polling and len(self._soon) == 1:
            self.reactor.callFromThread(self._catch_up)

    def _catch_up(self) -> None:
        while self._soon:
            call = self._soon.popleft()
            try:
                call()
            except Exception as problem:  # noqa: BLE001 - the others have to be called all the same
                _report(problem, "a socket's handler raised")

    # What the reactor asks for.

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def doRead(self) -> None:
        """Serve the sockets that are ready, for some milliseconds at most; never raises, or the reactor would not ask again."""
        try:
            self._serve_ready()
        except Exception as problem:  # noqa: BLE001 - out of memory, even to log that; whoever is ready is told of again
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
        self._stop_if_unused()

    def _serve(self, until: float) -> bool:
        """Serve a batch, and tell whether there is time for another one."""
        handlers, soon, now = self._handlers, self._soon, time.monotonic
        left = self._left
        while left:
            descriptor, events = left.popitem()
            handler = handlers.get(descriptor)
            if handler is None:
                continue
            try:
                handler(events)
            except Exception as problem:  # noqa: BLE001 - one socket's trouble must not become that of the others
                _report(problem, "a socket's handler raised")
            if soon:
                self._catch_up()
            if now() > until:
                return False
        return True

    def logPrefix(self) -> str:
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        """Does nothing: the sockets' owners end them when the reactor stops."""


def _report(problem: Exception, what: str) -> None:
    if isinstance(problem, MemoryError):
        MEMORY.lacks()
        return
    with contextlib.suppress(Exception):  # there may be no memory left for it
        _log.failure(what)
