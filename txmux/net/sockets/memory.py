"""Memory reserved for when there is none: ending connections, and logging it, takes some."""

import errno
import mmap
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.logger import Logger
from twisted.python.failure import Failure

_PIECES, _MOST = 8, 4
_LEFT = 2  # pieces that are free besides
_PIECE = 2**20  # bytes: what Python asks the system for at a time to make small objects of
_CALM = 1.0  # seconds without a shortage after which it is over

_log = Logger()


class OutOfMemory(ConnectionAborted):
    """A connection is broken off, since there is no memory to serve it."""

    osError = errno.ENOMEM  # as Twisted's errors of connecting have it

    def __str__(self) -> str:
        return "there is no memory left"


OUT_OF_MEMORY = Failure(OutOfMemory())
"""Why a connection is gone that there was no memory for. One object for all, made while there is some."""


def _new_piece() -> object:
    # Never written to, so it takes no memory.
    return mmap.mmap(-1, _PIECE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Memory:
    """The reserve of this process: given back when memory runs out, and taken again when half as much is free."""

    def __init__(
        self,
        new_piece: Callable[[], object] = _new_piece,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new_piece = new_piece
        self._seconds = seconds
        self._pieces: list[object] = []
        self.short_since: float | None = None  # the last shortage; None while there is enough
        self._ended = 0

    def is_enough(self) -> bool:
        if self.short_since is None:
            return True
        is_calm = self._seconds() - self.short_since >= _CALM
        if not self.fill():
            # What has been freed may be in pieces of which no reserve can be made: clients must not wait for ever.
            self._pieces.clear()
            return is_calm
        if is_calm:
            self._log_end()
        return True

    def fill(self) -> bool:
        with suppress(MemoryError, OSError):
            while len(self._pieces) < _PIECES + _LEFT:
                self._pieces.append(self._new_piece())
        del self._pieces[-_LEFT:]  # or the next allocation would fail
        return len(self._pieces) >= _MOST

    def report_shortage(self, *, ended: int = 0) -> None:
        self._pieces.clear()
        self._ended += ended
        is_new, self.short_since = self.short_since is None, self._seconds()
        if is_new:
            with suppress(MemoryError):
                _log.error(
                    "out of memory: connections that need more are ended, and new clients wait: "
                    "raise the limit (LimitAS=, ulimit -v) or set max_connections"
                )

    def _log_end(self) -> None:
        self.short_since = None
        count, self._ended = self._ended, 0
        _log.info("memory is available again; connections ended meanwhile: {count}", count=count)


MEMORY = Memory()  # the reserve of this process


def keep_running(reactor: Any) -> None:
    """Keep a reactor running when memory runs out even for its log: Twisted's main loop would end, and the process with it."""
    MEMORY.fill()
    once = reactor.mainLoop

    def main_loop() -> None:
        while True:
            with suppress(MemoryError):
                once()
                return
            MEMORY.report_shortage()

    reactor.mainLoop = main_loop
