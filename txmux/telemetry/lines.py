"""Writes lines to a descriptor without blocking."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import IO, Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.errors import printable_lines
from txmux.telemetry.formatting import plural

_HELD = 4 * 1024 * 1024
"""Bytes buffered for a slow reader: enough for a short storm of clients."""
_AT_ONCE = 256  # lines
_SURE = 512  # bytes that a writable terminal takes at once
_WHOLE = 4096  # bytes that a pipe takes whole or not at all (PIPE_BUF), and a UNIX socket, too

_JSON = "\x1e"  # begins an event in JSON (RFC 7464), which escapes its texts
AGAIN = 0.1  # seconds between two attempts to write the buffer
_LOOK = 5.0  # seconds between two looks at a disk that was full
_ROOM = 65536  # bytes that must be free on it
_LAST = 1.0  # seconds for a slow reader when the log is closed
_SETTLED = 5.0
"""Seconds for which no worker loses lines until that counts as over: short ones may still fit on a disk that is full."""


class LostLines:
    """Counts the lines that logs of this process could not write.

    Attributes:
        written: The logs that took the last line.
        totals: How many lines each log has lost in this process.
    """

    def __init__(self) -> None:
        self._count = 0
        self._losing: dict[str, tuple[str, int]] = {}
        self._unopened: dict[str, str] = {}
        self.written: set[str] = set()
        self.totals = Counter[str]()

    def add(self, log: str, count: int, why: str) -> None:
        self._count += count
        self.totals[log] += count
        self.written.discard(log)
        self._losing[log] = why, self._losing.get(log, ("", 0))[1] + count

    def end(self, log: str) -> None:
        self._losing.pop(log, None)

    def report(self) -> dict[str, int]:
        """Return how many lines each log has lost that cannot be written or opened now, by its name and the reason."""
        unopened = {log: (why, 0) for log, why in self._unopened.items()}
        return {f"{log}: {why}": count for log, (why, count) in (unopened | self._losing).items()}

    def cannot_open(self, log: str, why: str) -> None:
        self._unopened[log] = why

    def opened(self, log: str) -> None:
        self._unopened.pop(log, None)

    def take_count(self) -> int:
        """Return how many lines were lost since the last call."""
        count, self._count = self._count, 0
        return count


LOST_LINES = LostLines()


class LostLinesLog:
    """Logs how many lines an access log has lost in all workers, once all of them write it again.

    Args:
        seconds: A monotonic clock.

    Attributes:
        losing: How many lines each log that cannot be written now has lost since the service started, by its name and the reason.
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._reported: dict[tuple[int, str], int] = {}
        self._lost = Counter[str]()
        self._totals = Counter[str]()
        self._good_since: dict[str, float] = {}
        self.losing: Mapping[str, int] = {}

    def restore(self, losing: Mapping[str, int], log: str) -> None:
        """Count the lines of a log that the predecessor could not write."""
        self.losing = {
            name: count for name, count in losing.items() if _name_in(name) == log and count
        }
        for count in self.losing.values():
            self._lost[log] += count
            self._totals[log] += count

    def record(
        self,
        reports: Iterable[tuple[int, Mapping[str, int]]],
        losing: Mapping[str, int],
        written: Collection[str],
        log: str,
    ) -> None:
        """Record how many lines each process has lost since it began, by its number and the name of the log.

        Args:
            reports: Those numbers.
            losing: As the attribute, but of processes that run now, and since it cannot be written.
            written: The logs that took the last line.
            log: The name of the access log: where the only process that lost lines has ended, it stays until a line is written.
        """
        for number, totals in reports:
            for name, total in totals.items():
                before = self._reported.get((number, name), 0)
                self._reported[number, name] = total
                # With fewer than before it is another process.
                more = total - before if total >= before else total
                self._lost[name] += more
                self._totals[name] += more
        names = sorted(losing, key=losing.__getitem__)
        unwritten = {*map(_name_in, names)}
        if log not in unwritten and log not in written and self._totals[log]:
            names += [name for name in self.losing if _name_in(name) == log]
            unwritten.update(map(_name_in, names))
        self.losing = {name: self._totals[_name_in(name)] for name in names}
        now = self._seconds()
        for name in [name for name, count in self._lost.items() if count]:
            if name in unwritten:
                self._good_since.pop(name, None)
            elif now - self._good_since.setdefault(name, now) >= _SETTLED:
                is_former = name.startswith("access log ") and name != log
                self._log.info(
                    "{log}: {state}; {lines} lost in all",
                    log=name,
                    state="no longer in use" if is_former else "written again",
                    lines=plural(self._lost.pop(name), "line"),
                )
                del self._good_since[name]


def _name_in(log: str) -> str:
    return log.partition(": ")[0]


class LineWriter:
    """Writes whole lines only.

    What a pipe, a terminal or a socket does not take at once is buffered up to a limit; the newest lines beyond it are lost.
    What a file does not take, since the disk is full, is lost, and a line written in part is cut off again, or else ends there.
    Threads and handlers of signals may use it.

    Args:
        descriptor: The caller owns it. With the reason why there is none, lines are lost for that until `move`.
        name: That of the log, for `LOST_LINES`.
        trouble: Called with the reason when the first line is lost.
        mended: Called with the number of lost lines once writing works again.
        limit: Bytes to buffer.
    """

    def __init__(
        self,
        descriptor: int | str,
        name: str,
        trouble: Callable[[str], object],
        mended: Callable[[int], object],
        limit: int = _HELD,
    ) -> None:
        self._name = name
        self._trouble = trouble
        self._mended = mended
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._begun = 0  # bytes of the first line that were written already
        self._is_torn = False  # whether what was written last is a part of a line
        self._is_full = False
        self._writing = threading.Lock()
        self.lost = 0
        self._is_proven = False
        self._use(descriptor)

    def _use(self, descriptor: int | str) -> None:
        self._is_torn = False
        if isinstance(descriptor, str):
            self._descriptor = -1
            self.put: Callable[[bytes], int] = partial(_refuse, descriptor)
            self._close: Callable[[], None] = lambda: None
        else:
            self._descriptor = descriptor
            self.put, self._close = _way_to(descriptor)

    @property
    def is_holding(self) -> bool:
        return bool(self._lines)

    @property
    def next_try(self) -> float:
        """Seconds after which to call `try_again`; 0 if nothing is to be tried."""
        return AGAIN if self._lines else _LOOK if self._is_full else 0.0

    def try_again(self) -> None:
        """Write the buffer; if the disk was full, see whether it has room, also where there is no line to write."""
        if self._is_full and self._has_room():
            self._succeeded()
        self.flush()

    def _has_room(self) -> bool:
        try:
            disk = os.fstatvfs(self._descriptor)
        except OSError:
            return False
        return (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize >= _ROOM

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines, each with its newline; never raises or waits."""
        for line in lines:
            self._size += len(line)
            self._lines.append(line)
        self.flush()

    def flush(self) -> bool:
        """Return whether the buffer is empty now."""
        if not self._lines:  # so success says nothing about whether writing works again
            return True
        stalled = False
        # A call during another one's write leaves its lines to that one.
        while self._lines and not stalled and self._writing.acquire(blocking=False):
            try:
                stalled = not self._try()
                if stalled:
                    self._drop_newest()
            finally:
                self._writing.release()
        if self._lines or stalled:
            return False
        self._size = 0
        if self.lost or not self._is_proven:
            self._succeeded()
        return not self._lines  # 'mended' may have written one more

    def _succeeded(self) -> None:
        lost, self.lost = self.lost, 0
        self._is_proven, self._is_full = True, False
        LOST_LINES.end(self._name)
        LOST_LINES.written.add(self._name)
        if lost:
            self._mended(lost)

    def finish(self, seconds: float) -> None:
        if not self.flush():
            queue = select.poll()
            queue.register(self._descriptor, select.POLLOUT)
            pause = 50
            for _ in range(int(seconds * 1000 / pause)):
                queue.poll(pause)
                if self.flush():
                    return

    def give_up(self, why: str) -> None:
        """Count the buffer as lost."""
        with self._writing:
            self._discard(why)

    def move(self, descriptor: int) -> None:
        self.flush()
        with self._writing:
            self._close()
            self._use(descriptor)
        self.flush()

    def close(self) -> None:
        """Stop writing, and discard the buffer, whose lines count as lost."""
        self.flush()
        if self._lines:
            LOST_LINES.add(self._name, len(self._lines), "it is closed")
        LOST_LINES.end(self._name)
        LOST_LINES.opened(self._name)
        self._close()

    def _try(self) -> bool:
        try:
            return self._write_some()
        except OSError as problem:
            is_full = problem.errno == errno.ENOSPC
            self._is_full = is_full and stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            self._discard(str(problem.strerror))
            return False

    def _write_some(self) -> bool:
        """Return whether more can be written."""
        if self._is_torn:
            self._is_torn = not self.put(b"\n")
            if self._is_torn:
                return False
        written = self.put(b"".join(list(islice(self._lines, _AT_ONCE))))
        left = written
        while left and len(self._lines[0]) <= left:
            line = self._lines.popleft()
            left -= len(line)
            self._size -= len(line)
            self._begun = 0
        if left:
            self._lines[0] = self._lines[0][left:]
            self._size -= left
            self._begun += left
        return written > 0

    def _drop_newest(self) -> None:
        dropped = 0
        while self._size > self._limit and len(self._lines) > bool(self._begun):
            self._size -= len(self._lines.pop())
            dropped += 1
        self._lose(dropped, "the reader is too slow")

    def _discard(self, why: str) -> None:
        self._lose(len(self._lines), why)
        self._lines.clear()
        self._size = 0
        if self._begun and not self._cut():
            self._is_torn = True
        self._begun = 0

    def _cut(self) -> bool:
        """Cut off the part of a line that was written, unless another process has appended since.

        A worker in the sandbox may not: it could cut off what others have written.
        """
        try:
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size != end:
                return False
            os.ftruncate(self._descriptor, end - self._begun)
            os.lseek(self._descriptor, end - self._begun, os.SEEK_SET)
        except OSError:  # it is not a file
            return False
        return True

    def _lose(self, lines: int, why: str) -> None:
        if lines:
            self.lost += lines
            LOST_LINES.add(self._name, lines, why)
            if self.lost == lines:
                self._trouble(why)


def _refuse(why: str, _: bytes) -> int:
    raise OSError(errno.EBADF, why)


def _way_to(descriptor: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """Return two functions: one that writes without waiting and returns how many bytes were taken, one that cleans up."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):  # a file is never waited for
        return lambda data: os.write(descriptor, data), lambda: None
    if stat.S_ISSOCK(mode):
        own = socket.socket(fileno=os.dup(descriptor))
        return lambda data: _tried(own.send, _lines_of(data), socket.MSG_DONTWAIT), own.close
    try:
        # O_NONBLOCK belongs to the open file, which other processes share; so it is opened once more.
        again = os.open(
            f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        )
    except OSError:
        return lambda data: _sure(descriptor, data), lambda: None
    return lambda data: _tried(os.write, again, _lines_of(data)), lambda: os.close(again)


def _lines_of(data: bytes) -> bytes:
    # These arrive in one piece, so lines of other processes come between, not into them.
    return data[: data.rfind(b"\n", 0, _WHOLE) + 1 or data.find(b"\n") + 1]


def _tried(write: Callable[..., int], *arguments: object) -> int:
    try:
        return write(*arguments)
    except BlockingIOError:
        return 0


def _sure(descriptor: int, data: bytes) -> int:
    queue = select.poll()
    queue.register(descriptor, select.POLLOUT)
    return os.write(descriptor, data[:_SURE]) if queue.poll(0) else 0


_log = Logger()
_LOST = "this log was not read for a while; lost: {lines}"


_SERVICE_LOGS: weakref.WeakSet[ServiceLog] = weakref.WeakSet()


async def write_rest_of_service_logs(is_over: Callable[[], bool]) -> None:
    """Wait until slow readers have taken what waits for them, and count what they have not when `is_over`."""
    for log in [*_SERVICE_LOGS]:
        await log.write_rest(is_over)


class ServiceLog:
    """The file that Twisted's log observers write to, in place of one that would wait for the reader."""

    encoding = "utf-8"

    def __init__(self, file: IO[str], reactor: Any) -> None:
        file.flush()
        self._file = file  # which would close its descriptor when it is collected
        self._reactor = reactor
        self._is_waiting = False
        self._writer = LineWriter(
            file.fileno(),
            "the service's log",
            lambda _why: None,
            lambda lost: _log.warn(_LOST, lines=plural(lost, "line")),
        )
        reactor.addSystemEventTrigger("after", "shutdown", self._writer.finish, _LAST)
        _SERVICE_LOGS.add(self)

    def write(self, text: str) -> None:
        if not text.startswith(_JSON):
            text = printable_lines(text)
        self._writer.write([text.encode(errors="replace")])
        if self._writer.is_holding and not self._is_waiting:
            self._is_waiting = True
            self._reactor.callFromThread(self._wait)  # whatever thread this is

    def flush(self) -> None:
        pass  # each line is written as soon as possible

    async def write_rest(self, is_over: Callable[[], bool]) -> None:
        while not self._writer.flush() and not is_over():
            await deferLater(self._reactor, AGAIN)
        self._writer.give_up("the reader is too slow")

    def _wait(self) -> None:
        self._reactor.callLater(AGAIN, self._try)

    def _try(self) -> None:
        if self._writer.flush():
            self._is_waiting = False
        else:
            self._wait()
