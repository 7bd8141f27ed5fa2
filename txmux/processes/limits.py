"""The limits of several processes together: what they count is in one file of memory, which has one lock."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
from typing import TYPE_CHECKING

import attrs

from txmux.frontend.hops import Hops
from txmux.frontend.limits.admission import Admission, Counter, Tally
from txmux.frontend.limits.per_source import PerSource, SourceLimits, SourceTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.rules.model import Listener, Rules

__all__ = ["FileLock", "Layout", "SharedLimits", "SharedTally"]

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
        limit: The most; 0 is no limit.
        counter: The number in this worker, under whichever rules.
        counts: A number for each worker, which only that worker changes.
        worker: Which this is, counted from 0.
        lock: Is held while the others are compared with the limit.
    """

    def __init__(
        self,
        limit: int,
        counter: Counter,
        counts: memoryview[int],
        worker: int,
        lock: FileLock,
    ) -> None:
        super().__init__(limit, counter)
        self._counts = counts
        self._worker = worker
        self._lock = lock

    def take(self) -> bool:
        """Count one more, unless the limit is reached; tell which."""
        if not self.limit:
            self.add()
            return True
        with self._lock:
            free = sum(self._counts) < self.limit
            if free:
                self.add()
            return free

    def add(self) -> None:
        """Count one more, whatever the limit."""
        self._counter.count += 1
        self._counts[self._worker] = self._counter.count

    def give_back(self) -> None:
        """Count one less. For each `take` that said yes, once."""
        self._counter.count -= 1
        self._counts[self._worker] = self._counter.count


@attrs.define
class Layout:
    """Where each number is in the memory. It only ever grows, so that what counts in one place goes on.

    Attributes:
        columns: The highest number of workers.
        rows: Where the counts of a listener begin; those of the service have no name.
        tables: Where the `SourceTable` of a listener begins.
        size: Of all, in bytes.
    """

    columns: int
    rows: dict[str, int] = attrs.field(factory=dict)
    tables: dict[str, int] = attrs.field(factory=dict)
    size: int = Hops.SIZE

    def extend(self, rules: Rules) -> None:
        """Find places for all that the listeners of rules count."""
        for name in ("", *(listener.name for listener in rules.listeners)):
            if name not in self.rows:
                self.rows[name] = self._add(self.columns * _SIZE)
        for listener in rules.listeners:
            if SourceLimits.of(listener) is not None and listener.name not in self.tables:
                self.tables[listener.name] = self._add(SourceTable.size(self.columns))

    def _add(self, size: int) -> int:
        start = self.size
        self.size += size
        return start


class SharedLimits:
    """All limits that the listeners of rules have.

    The memory has `Hops`, a row of counts for the service and for each listener, with a column for each worker, and a
    `SourceTable` for each listener that limits sources. A worker changes only its own column and the slots of sources, so
    what a worker that ended by itself leaves behind can be cleared.

    Args:
        descriptor: Of the file that the parent has made; closed by `close`.
        layout: Where everything is.

    Attributes:
        hops: Recognises connections that come back, to whichever worker.
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.descriptor = descriptor
        self._lock = FileLock(descriptor)
        self._counters: dict[str, Counter] = {}
        self.use(layout)
        self.hops = Hops(self._memory[: Hops.SIZE])

    @classmethod
    def make(cls, rules: Rules, workers: int) -> SharedLimits:
        """Make the memory, for the workers that inherit its descriptor.

        Args:
            rules: With which it begins.
            workers: The highest number of them, also later.
        """
        descriptor = _unnamed_file()
        layout = Layout(workers)
        layout.extend(rules)
        os.ftruncate(descriptor, layout.size)
        return cls(descriptor, layout)

    def extend(self, rules: Rules) -> None:
        """Make room for what other rules count, too."""
        self.layout.extend(rules)
        os.ftruncate(self.descriptor, self.layout.size)
        self.use(self.layout)

    def use(self, layout: Layout) -> None:
        """Follow the parent, who has made room."""
        self.layout = layout
        # Given back with the last that uses it.
        self._memory = memoryview(mmap.mmap(self.descriptor, layout.size))
        size = SourceTable.size(layout.columns)
        self._tables = {
            name: SourceTable(self._memory[start : start + size], layout.columns)
            for name, start in layout.tables.items()
        }

    def admissions(
        self, worker: int, seconds: Callable[[], float], most: int
    ) -> Callable[[Listener], Admission]:
        """Give what makes the admission of a listener.

        Args:
            worker: Which process this is, counted from 0.
            seconds: Tells the time, the same in all processes.
            most: Connections of all listeners together; 0 is no limit.
        """

        def admission(listener: Listener) -> Admission:
            return Admission(
                listener,
                seconds,
                service=self.tally(most, "", worker),
                listener=self.tally(listener.max_connections, listener.name, worker),
                per_source=self.per_source(listener, worker, seconds),
            )

        return admission

    def tally(self, limit: int, name: str, worker: int) -> SharedTally:
        """Make what counts the connections of a listener, or of the service, in one of the processes."""
        counter = self._counters.setdefault(f"{worker} {name}", Counter())
        return SharedTally(limit, counter, self._row(name), worker, self._lock)

    def _row(self, name: str) -> memoryview[int]:
        start = self.layout.rows[name]
        return self._memory[start : start + self.layout.columns * _SIZE].cast("Q")

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
        for name in self.layout.rows:
            self._row(name)[worker] = 0
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
