"""Wake-ups by the megabyte: a mark on a socket from which much comes, below which the kernel does not report its bytes.

The mark is `SO_RCVLOWAT` (socket(7)), which poll and epoll heed for TCP. The kernel reports an end, an error and a
full window in any case, but not a sender that pauses below the mark. For those there is one timer for all marks.

How fast a sender must be depends on the machine, so each mark is a trial: if the sender paused before it had reached it twice,
the next one is set after twice as many bytes. A fast sender that only did not get its CPU core gets it again at once.
"""

from __future__ import annotations

import socket
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LEVEL = 2**20  # bytes below which a marked socket is not reported; fewer where its buffer is small
RUN = 8 * LEVEL
"""Bytes that come in a run before there is a mark: more than most messages that wait for an answer."""
LONGEST_RUN = 1024 * LEVEL
"""The same for a sender that has often paused below a mark, or has been answered although its bytes came in runs."""
PAUSE = 0.001
"""Seconds without a byte after which a sender pauses. What it has sent below the mark waits for twice as long at most."""

_SHARE = 4  # of a socket's buffer; with more the kernel would enlarge it, and the sender would see it nearly full
_LEAST = 2**17  # bytes; with less a mark saves nothing

_guards: WeakKeyDictionary[Any, MarkGuard] = WeakKeyDictionary()


class MarkGuard:
    """Removes the marks of sockets whose senders pause. Its timer runs only while there is a mark."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.marks: dict[Mark, None] = {}
        self._timer: IDelayedCall | None = None

    @classmethod
    def for_reactor(cls, reactor: IReactorTime) -> MarkGuard:
        guard = _guards.get(reactor)
        if guard is None:
            guard = _guards[reactor] = cls(reactor)
        return guard

    def add_mark(self, mark: Mark) -> None:
        self.marks[mark] = None
        if self._timer is None:
            self._timer = self._reactor.callLater(PAUSE, self._check_all)

    def remove_mark(self, mark: Mark) -> None:
        self.marks.pop(mark, None)
        if not self.marks and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_all(self) -> None:
        self._timer = None
        try:
            for mark in [*self.marks]:
                if mark.has_paused():
                    mark.sender_paused()
            if self.marks:
                self._timer = self._reactor.callLater(PAUSE, self._check_all)
        except MemoryError:
            while self.marks:  # or what waits below them would stay there
                next(iter(self.marks)).clear()


class Mark:
    """The mark of one TCP socket, set while much comes from its peer in a run."""

    __slots__ = ("_guard", "_needed", "_paused", "_rested", "_run", "_source", "is_set")

    def __init__(self, source: socket.socket, guard: MarkGuard) -> None:
        self._source = source
        self._guard = guard
        self.is_set = False
        self._rested = False  # when the guard looked last
        self._paused = False  # while there was a mark, and has not been answered yet
        self._needed = RUN
        self._run = 0  # bytes since the mark was set or removed

    def bytes_came(self, count: int) -> None:
        self._rested = False
        self._run += count
        if self._run >= self._needed and not self.is_set:
            self._run = 0
            self._set()

    def _set(self) -> None:
        if self._source.family == socket.AF_UNIX:
            return
        room = self._source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        level = min(LEVEL, room // _SHARE)
        if level >= _LEAST:
            self.is_set = True
            self._guard.add_mark(self)
            self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, level)

    def has_paused(self) -> bool:
        rested, self._rested = self._rested, True
        return rested

    def sender_paused(self) -> None:
        has_worked = self._run >= 2 * LEVEL
        self._needed = LEVEL if has_worked else min(2 * self._needed, LONGEST_RUN)
        self.clear()
        self._paused = True

    def sender_answered(self) -> None:
        """Remove the mark: the sender may have waited for the answer. If a mark has slowed it down, the next needs more."""
        if self.is_set or self._paused:
            self._needed = min(2 * max(self._needed, RUN), LONGEST_RUN)
            self._paused = False
        self.clear()

    def clear(self) -> None:
        self._run = 0
        if self.is_set:
            self.socket_closed()
            self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def socket_closed(self) -> None:
        if self.is_set:
            self.is_set = False
            self._guard.remove_mark(self)
