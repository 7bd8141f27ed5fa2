"""Counting connections together with other processes, exactly."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile

from txmux.frontend.limits.admission import Tally

__all__ = ["Counters", "SharedTally", "unnamed_file"]

_SIZE = 8  # of a number, in bytes


class Counters:
    """A table of numbers in memory that several processes share: a row for each limit, a column for each worker.

    A worker writes only into its own column, so what a worker that ended by itself leaves behind can be cleared.

    Args:
        descriptor: A file that was made for it, empty at first.
        rows: Limits.
        columns: Workers.
    """

    def __init__(self, descriptor: int, rows: int, columns: int) -> None:
        self.descriptor = descriptor
        self._rows = rows
        self._columns = columns
        size = rows * columns * _SIZE
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        self._numbers = memoryview(self._memory).cast("Q")

    @classmethod
    def make(cls, rows: int, columns: int) -> Counters:
        """Make a table of zeros."""
        return cls(unnamed_file(), rows, columns)

    def close(self) -> None:
        """Give the memory back."""
        self._numbers.release()
        self._memory.close()
        os.close(self.descriptor)

    def put(self, row: int, column: int, number: int) -> None:
        """Set a number; only whoever owns the column may."""
        self._numbers[row * self._columns + column] = number

    def put_below(self, limit: int, row: int, column: int, number: int) -> bool:
        """Set a number that is one more than before, unless the sum of its row has reached the limit; tell which."""
        # Such a lock belongs to the process, so it is gone with a process that ends while holding it.
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, row)
        try:
            start = row * self._columns
            free = sum(self._numbers[start : start + self._columns]) < limit
            if free:
                self.put(row, column, number)
            return free
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, row)

    def clear(self, column: int) -> None:
        """Forget the numbers of a worker that has ended."""
        for row in range(self._rows):
            self.put(row, column, 0)


def unnamed_file() -> int:
    """Make a file in memory, where the system has such, that is gone when nobody has it open any more."""
    if sys.platform == "linux":
        return os.memfd_create("txmux")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedTally(Tally):
    """How many connections there are, in all workers together.

    Args:
        limit: At most so many; more than 0.
        counters: Where they are counted.
        row: For this limit.
        column: For this worker.
    """

    def __init__(self, limit: int, counters: Counters, row: int, column: int) -> None:
        super().__init__(limit)
        self._counters = counters
        self._row = row
        self._column = column

    def take(self) -> bool:
        """Count one more, unless the limit is reached; tell which."""
        taken = self._counters.put_below(self.limit, self._row, self._column, self.count + 1)
        self.count += taken
        return taken

    def give_back(self) -> None:
        """Count one less. For each `take` that said yes, once."""
        self.count -= 1
        self._counters.put(self._row, self._column, self.count)
