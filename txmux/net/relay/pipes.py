"""Pipes that bytes pass through on their way from one socket to another, inside the kernel (splice(2))."""

from __future__ import annotations

import contextlib
import fcntl
import os

from txmux.net.sockets.descriptors import DESCRIPTORS, Descriptors

PIPE_SIZE = 256 * 1024  # bytes that a pipe may hold
LARGE_SIZE = 2**20  # bytes that a large one may hold: the most that Linux allows every user
_ENDS = 2


class Spliced:
    """Counts the bytes that have passed through pipes in this process since the last `take_count`."""

    def __init__(self) -> None:
        self.count = 0

    def take_count(self) -> int:
        count, self.count = self.count, 0
        return count


SPLICED = Spliced()


class Pipe:
    """A pipe that does not block."""

    __slots__ = ("level", "sink", "size", "source")

    def __init__(self, size: int) -> None:
        self.size = size
        self.source, self.sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.level = 0
        with contextlib.suppress(OSError):  # the user has many; then it keeps its size
            fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.sink)


class PipePool:
    """Keeps pipes for further use. Linux lets a user have 64 MiB of them.

    Args:
        in_use: The most that are in use at a time: each takes two descriptors, which connections need too.
        idle: The most that stay open.
    """

    def __init__(
        self,
        in_use: int = 192,
        idle: int = 16,
        descriptors: Descriptors = DESCRIPTORS,
        size: int = PIPE_SIZE,
    ) -> None:
        self._size = size
        self._in_use = in_use
        self._idle_limit = idle
        self._given = 0
        self._idle: list[Pipe] = []
        self._descriptors = descriptors

    def take_pipe(self) -> Pipe | None:
        if self._given >= self._in_use:
            return None
        try:
            pipe = self._idle.pop() if self._idle else self._make()
        except OSError:
            return None
        if pipe is None:
            return None
        self._given += 1
        return pipe

    def _make(self) -> Pipe | None:
        # Connections need descriptors, and do without a pipe.
        return Pipe(self._size) if self._descriptors.can_spare(_ENDS) else None

    def give_back(self, pipe: Pipe) -> None:
        """Keep or close a pipe. One that is not empty is closed: its bytes must not reach another connection."""
        self._given -= 1
        if pipe.level or len(self._idle) >= self._idle_limit:
            pipe.close()
        else:
            self._idle.append(pipe)

    def clear(self) -> None:
        while self._idle:
            self._idle.pop().close()
