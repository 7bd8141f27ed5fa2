"""The limits of several processes together: what they count stands in memory that they share."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from txmux.frontend.limits.admission import Admission, Tally
from txmux.frontend.limits.per_source import PerSource, SourceLimits, SourceTable
from txmux.processes.counters import Counters, SharedTally, unnamed_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from txmux.rules.model import Listener, Rules

__all__ = ["FileLock", "SharedLimits", "SharedTable"]


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


class SharedTable:
    """A `SourceTable` in a file that several processes have.

    Args:
        descriptor: The file, empty at first.
        columns: So many processes.

    Attributes:
        descriptor: The same.
    """

    def __init__(self, descriptor: int, columns: int) -> None:
        self.descriptor = descriptor
        size = SourceTable.size(columns)
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        self._table = SourceTable(self._memory, columns)

    def per_source(
        self, limits: SourceLimits, seconds: Callable[[], float], column: int
    ) -> PerSource:
        """Make what lets connections in, in one of the processes.

        Args:
            limits: What a source may have.
            seconds: Tells the time, the same in all processes.
            column: Which process this is.
        """
        return PerSource(limits, seconds, self._table, column, FileLock(self.descriptor))

    def clear(self, column: int) -> None:
        """Forget the connections of a process that has ended."""
        self._table.clear(column)

    def close(self) -> None:
        """Give the memory back."""
        self._table.close()
        self._memory.close()
        os.close(self.descriptor)


class SharedLimits:
    """All limits that the listeners of rules have.

    Args:
        rules: The same in all processes.
        workers: So many processes.
        descriptors: Those that the parent has made; as many as are needed are taken from it.
    """

    def __init__(self, rules: Rules, workers: int, descriptors: Iterator[int]) -> None:
        self._settings = rules.settings
        self._counters = Counters(next(descriptors), 1 + len(rules.listeners), workers)
        self._rows = {listener.name: row for row, listener in enumerate(rules.listeners, 1)}
        self._tables = {
            listener.name: SharedTable(next(descriptors), workers)
            for listener in rules.listeners
            if SourceLimits.of(listener) is not None
        }
        self._parts: list[Counters | SharedTable] = [self._counters, *self._tables.values()]

    @classmethod
    def make(cls, rules: Rules, workers: int) -> SharedLimits:
        """Make the memory, for the workers that inherit `descriptors`."""
        return cls(rules, workers, iter(unnamed_file, -1))

    @property
    def descriptors(self) -> list[int]:
        """Where the memory is."""
        return [part.descriptor for part in self._parts]

    def admissions(
        self, worker: int, seconds: Callable[[], float]
    ) -> Callable[[Listener], Admission]:
        """Give what makes the admission of a listener.

        Args:
            worker: Which process this is, counted from 0.
            seconds: Tells the time.
        """

        def tally(limit: int, row: int) -> Tally | None:
            return SharedTally(limit, self._counters, row, worker) if limit else None

        service = tally(self._settings.max_connections, 0)

        def admission(listener: Listener) -> Admission:
            limits = SourceLimits.of(listener)
            return Admission(
                listener,
                seconds,
                service=service,
                listener=tally(listener.max_connections, self._rows[listener.name]),
                per_source=None
                if limits is None
                else self._tables[listener.name].per_source(limits, seconds, worker),
            )

        return admission

    def clear(self, worker: int) -> None:
        """Forget the connections of a worker that has ended."""
        for part in self._parts:
            part.clear(worker)

    def close(self) -> None:
        """Give the memory back."""
        for part in self._parts:
            part.close()
