"""One epoll object for all sockets that are served beside the reactor, and that is itself one reader in it.

One wake-up of any reactor then serves a whole batch of sockets, without what the reactor does for each (epoll(7)). Workers have a
reactor that shares its epoll object instead, see `txmux.net.sockets.reactor`; with `ReactorPoller` the reactor watches each socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.net.sockets.memory import MEMORY

FINISHED, WRITE, ERROR = 0x2000, 4, 8  # EPOLLRDHUP, EPOLLOUT and EPOLLERR
READ, TROUBLE = 1 | FINISHED, ERROR | 16  # EPOLLIN with EPOLLRDHUP, and EPOLLERR with EPOLLHUP
_READABLE = 1  # EPOLLIN
_EVERY = _READABLE | getattr(select, "POLLRDHUP", 0) | WRITE | TROUBLE  # that poll(2) knows here
BATCH = 32  # sockets that are served before the reactor has its turn: timers, signals, other descriptors
_SELECTABLE = 1024  # FD_SETSIZE of select(2)
_LOOK_EACH = 1.0  # seconds

_log = Logger()
POLLERS: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


def is_available() -> bool:
    return hasattr(select, "epoll")


def after_turn(reactor: Any) -> Callable[[Callable[[], None]], None]:
    return Poller.for_reactor(reactor).after_turn


def _not_open() -> int:
    return -1


@implementer(IReadDescriptor)
class Poller:
    """Reports to handlers what their sockets are ready for; level-triggered.

    An event may be out of date when its handler is called: the handler must ask its socket.

    Attributes:
        most: Descriptors that the reactor can watch are less than this; with more open at all, it would break off what gets those.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.most = _SELECTABLE if hasattr(reactor, "doSelect") else sys.maxsize
        self.epoll: Any = None
        self.fileno: Callable[[], int] = _not_open
        self.handlers: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}
        self.soon: deque[Callable[[], None]] = deque()
        self._last: list[Callable[[], None]] = []
        self._polling = False
        # Descriptors that a handler has begun to watch, or to watch for something else: their events of this batch are
        # those of a socket that had the number before, or of what is no longer waited for.
        self._outdated: set[int] = set()

    @classmethod
    def for_reactor(cls, reactor: Any) -> Poller:
        poller = POLLERS.get(reactor)
        if poller is None:
            poller = POLLERS[reactor] = (cls if is_available() else ReactorPoller)(reactor)
        return poller

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Begin to watch a descriptor, or replace its events and handler; `TROUBLE` is always reported.

        Raises:
            OSError: The system lacks what it takes (ENOSPC, ENOMEM, EMFILE); then the descriptor is not watched.
            MemoryError: So does this process.
        """
        if descriptor in self._events:
            if self._events[descriptor] != events:
                self.epoll.modify(descriptor, events)
                self._outdated.add(descriptor)  # a paused port must not accept a client
            self.handlers[descriptor] = handler
            self._events[descriptor] = events
            return
        try:
            # First what may take memory: events of a registered descriptor without a handler would be lost.
            self.handlers[descriptor] = handler
            self._events[descriptor] = events
            if self.epoll is None:
                self._open_epoll()
            self._outdated.add(descriptor)
            self.epoll.register(descriptor, events)
        except (OSError, MemoryError):
            self.handlers.pop(descriptor, None)
            self._events.pop(descriptor, None)
            self._stop_if_unused()
            raise

    def _open_epoll(self) -> None:
        self.epoll = select.epoll()
        self.fileno = self.epoll.fileno
        try:
            self.reactor.addReader(self)
        except (OSError, MemoryError):
            self._close_epoll()
            raise

    def change(self, descriptor: int, events: int) -> None:
        self.epoll.modify(descriptor, events)
        self._events[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        if self._events.pop(descriptor, None) is not None:
            del self.handlers[descriptor]
            self.epoll.unregister(descriptor)
            if not self.handlers:
                self._stop_if_unused()

    def closing(self, descriptor: int) -> None:
        """Stop watching a descriptor that is closed next: closing takes it out of the epoll object."""
        if self._events.pop(descriptor, None) is not None:
            del self.handlers[descriptor]
            if not self.handlers:
                self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if not self.handlers and not self._polling and self.epoll is not None:
            self.reactor.removeReader(self)
            self._close_epoll()

    def _close_epoll(self) -> None:
        self.epoll.close()
        self.epoll, self.fileno = None, _not_open

    def after_turn(self, call: Callable[[], None]) -> None:
        self._last.append(call)
        if not self._polling and len(self._last) == 1:
            self.reactor.callFromThread(self._finish)

    def _finish(self) -> None:
        while self._last:
            last, self._last = self._last, []
            self.soon.extend(last)
            self._call_all_soon()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)
        if not self._polling and len(self.soon) == 1:
            self.reactor.callFromThread(self._call_all_soon)

    def _call_all_soon(self) -> None:
        while self.soon:
            call = self.soon.popleft()
            try:
                call()
            except Exception as problem:  # noqa: BLE001 - the others must still be called
                _report(problem, "a socket's handler raised")

    # What the reactor asks for.

    def serve_ready(self, timeout: float | None = 0, asked: Iterable[int] | None = None) -> None:
        """Serve a batch of what is ready, or what is of those `asked`; never raises, or a reactor would not ask again."""
        handlers, soon, outdated = self.handlers, self.soon, self._outdated
        try:
            batch = self.epoll.poll(timeout, BATCH) if asked is None else self._ask(asked)
            self._polling = True
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
            if self._last:
                self._finish()
        except Exception as problem:  # noqa: BLE001 - out of memory, even to log that; what is ready is reported again
            _report(problem, "sockets could not be served")
        finally:
            self._polling = False
            if not handlers:
                self._stop_if_unused()

    doRead = serve_ready

    def _ask(self, descriptors: Iterable[int]) -> list[tuple[int, int]]:
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, self._events[descriptor] & _EVERY)
        return poll.poll(0)

    def _serve_other(self, descriptor: int, events: int) -> None:
        pass  # it has been closed in this batch

    def logPrefix(self) -> str:
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        pass  # the sockets' owners close them when the reactor stops


@implementer(IReadWriteDescriptor)
class _WatchedSocket:
    def __init__(self, poller: ReactorPoller, descriptor: int) -> None:
        self._poller = poller
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self._poller.serve(self)

    def doWrite(self) -> None:
        self._poller.serve(self)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's signature
        self._poller.serve_dropped(self)

    def logPrefix(self) -> str:
        return "sockets"


class ReactorPoller(Poller):
    """A poller whose descriptors the reactor watches, each by itself: for any reactor, and for systems without epoll(7).

    Reactors differ in what they report, so the socket is asked each time (poll(2)). What is to be watched for no event but
    `TROUBLE`, as reactors cannot, is asked once in a while.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._watched: dict[int, _WatchedSocket] = {}
        self._resting: set[int] = set()  # descriptors that no reactor watches
        self._look: IDelayedCall | None = None

    @override
    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        if descriptor in self._events:
            self.change(descriptor, events)
            self.handlers[descriptor] = handler
            return
        if descriptor >= self.most:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            self._watched[descriptor] = _WatchedSocket(self, descriptor)
            self.handlers[descriptor] = handler
            self._events[descriptor] = 0
            self._outdated.add(descriptor)
            self.change(descriptor, events)
        except (OSError, MemoryError):
            self.unwatch(descriptor)
            raise

    @override
    def change(self, descriptor: int, events: int) -> None:
        watched, reactor, before = self._watched[descriptor], self.reactor, self._events[descriptor]
        if (before ^ events) & _READABLE:
            (reactor.addReader if events & _READABLE else reactor.removeReader)(watched)
        if (before ^ events) & WRITE:
            (reactor.addWriter if events & WRITE else reactor.removeWriter)(watched)
        self._events[descriptor] = events
        if events & (_READABLE | WRITE):
            self._resting.discard(descriptor)
        else:
            self._resting.add(descriptor)
            if self._look is None:
                self._look = reactor.callLater(_LOOK_EACH, self._look_at_resting)

    @override
    def unwatch(self, descriptor: int) -> None:
        watched = self._watched.pop(descriptor, None)
        if watched is not None:
            self.handlers.pop(descriptor, None)
            self._events.pop(descriptor, None)
            self._resting.discard(descriptor)
            for remove in (self.reactor.removeReader, self.reactor.removeWriter):
                # asyncio would change the events of a socket that Twisted has closed.
                with contextlib.suppress(OSError):
                    remove(watched)
            if self._look is not None and not self._resting:
                self._look.cancel()
                self._look = None

    @override
    def closing(self, descriptor: int) -> None:
        self.unwatch(descriptor)

    def serve(self, watched: _WatchedSocket) -> None:
        """Tell the handler what its socket is ready for; never raises, or the reactor would not ask again."""
        descriptor = watched.fileno()
        if self._watched.get(descriptor) is watched:
            self.serve_ready(asked=(descriptor,))

    def serve_dropped(self, watched: _WatchedSocket) -> None:
        """Watch a descriptor again that the reactor has dropped because it hung up, and not because the reactor stops."""
        descriptor = watched.fileno()
        if self._watched.get(descriptor) is not watched:
            return
        if any(ready & TROUBLE for _, ready in self._ask((descriptor,))):
            events, self._events[descriptor] = self._events[descriptor], 0
            self.change(descriptor, events)
            self.serve_ready(asked=(descriptor,))

    def _look_at_resting(self) -> None:
        self._look = None
        self.serve_ready(asked=self._resting)
        if self._resting and self._look is None:
            self._look = self.reactor.callLater(_LOOK_EACH, self._look_at_resting)


def _report(problem: Exception, what: str) -> None:
    if isinstance(problem, MemoryError):
        MEMORY.report_shortage()
        return
    with contextlib.suppress(Exception):  # there may be no memory left for it
        _log.failure(what)
