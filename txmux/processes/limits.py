"""The limits of several processes together: what they count is in one file of memory, which has one lock."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from txmux.frontend.hops import Hops
from txmux.frontend.limits.admission import Admission, Tally
from txmux.frontend.limits.per_source import PerSource, SourceLimits, SourceTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.rules.model import Listener, Rules

__all__ = ["FileLock", "SharedLimits", "SharedTally"]

_SIZE = 8  # of a number, in bytes


class FileLock:
    """Keeps other processes out; not the other threads of this one.

    It belongs to the process, so it is gone with a process that ends while holding it.

    Args:
        descriptor: A file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        """Wait for it."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)


class SharedTally(Tally):
    """How many connections there are, in all workers together.

    Args:
        limit: The most; more than 0.
        counts: A number for each worker, which only that worker changes.
        worker: Which this is, counted from 0.
        lock: Is held while the others are compared with the limit.
    """

    def __init__(self, limit: int, counts: memoryview[int], worker: int, lock: FileLock) -> None:
        super().__init__(limit)
        self._counts = counts
        self._worker = worker
        self._lock = lock

    def take(self) -> bool:
        """Count one more, unless the limit is reached; tell which."""
        with self._lock:
            free = sum(self._counts) < self.limit
            self._counter.count += free
            self._counts[self._worker] = self._counter.count
            return free

    def add(self) -> None:
        """Count one more, whatever the limit."""
        self._counter.count += 1
        self._counts[self._worker] = self._counter.count

    def give_back(self) -> None:
        """Count one less. For each `add`, and each `take` that said yes, once."""
        self._counter.count -= 1
        self._counts[self._worker] = self._counter.count


class SharedLimits:
    """All limits that the listeners of rules have.

    The memory has a row of counts for the service and for each listener, with a column for each worker, and then a
    `SourceTable` for each listener that limits sources, and `Hops`. A worker changes only its own column and the slots of sources, so
    what a worker that ended by itself leaves behind can be cleared.

    Args:
        rules: The same in all processes.
        workers: The number of processes.
        descriptor: Of the file that the parent has made; closed by `close`.

    Attributes:
        hops: Recognises connections that come back, to whichever worker.
    """

    def __init__(self, rules: Rules, workers: int, descriptor: int) -> None:
        self.descriptor = descriptor
        self._settings = rules.settings
        self._workers = workers
        self._lock = FileLock(descriptor)
        self._rows = {listener.name: row for row, listener in enumerate(rules.listeners, 1)}
        by_source = [one.name for one in rules.listeners if SourceLimits.of(one) is not None]
        counts = (1 + len(self._rows)) * workers * _SIZE
        table = SourceTable.size(workers)
        tables = counts + len(by_source) * table
        size = tables + Hops.SIZE
        os.ftruncate(descriptor, size)
        memory = memoryview(mmap.mmap(descriptor, size))  # given back with the last that uses it
        self._counts = memory[:counts].cast("Q")
        self._tables = {
            name: SourceTable(memory[start : start + table], workers)
            for name, start in zip(by_source, range(counts, tables, table), strict=True)
        }
        self.hops = Hops(memory[tables:])

    @classmethod
    def make(cls, rules: Rules, workers: int) -> SharedLimits:
        """Make the memory, for the workers that inherit its descriptor."""
        return cls(rules, workers, _unnamed_file())

    def admissions(
        self, worker: int, seconds: Callable[[], float]
    ) -> Callable[[Listener], Admission]:
        """Give what makes the admission of a listener.

        Args:
            worker: Which process this is, counted from 0.
            seconds: Tells the time, the same in all processes.
        """
        service = self.tally(self._settings.max_connections, 0, worker)

        def admission(listener: Listener) -> Admission:
            return Admission(
                listener,
                seconds,
                service=service,
                listener=self.tally(listener.max_connections, self._rows[listener.name], worker),
                per_source=self.per_source(listener, worker, seconds),
            )

        return admission

    def tally(self, limit: int, row: int, worker: int) -> SharedTally | None:
        """Make what counts connections in one of the processes; ``None`` if there is no limit."""
        counts = self._counts[row * self._workers : (row + 1) * self._workers]
        return SharedTally(limit, counts, worker, self._lock) if limit else None

    def per_source(
        self, listener: Listener, worker: int, seconds: Callable[[], float]
    ) -> PerSource | None:
        """Make what counts those of each source in one of the processes; ``None`` if there is no limit."""
        limits = SourceLimits.of(listener)
        if limits is None:
            return None
        return PerSource(limits, seconds, self._tables[listener.name], worker, self._lock)

    def clear(self, worker: int) -> None:
        """Forget the connections of a worker that has ended."""
        for index in range(worker, len(self._counts), self._workers):
            self._counts[index] = 0
        for table in self._tables.values():
            table.clear(worker)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def _unnamed_file() -> int:
    """Make a file in memory, where the system has such, that is gone when nobody has it open any more."""
    if sys.platform == "linux":
        return os.memfd_create("txmux")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
