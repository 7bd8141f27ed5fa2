"""The limits of several processes together: their counts are in one memory file with one lock."""

from __future__ import annotations

import base64
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
from typing_extensions import override

from txmux.access.admission import Admission, Counter, Tally
from txmux.access.loops import LoopDetector
from txmux.access.per_source import PerSource, SourceLimits, SourceTable
from txmux.errors import MuxError
from txmux.rules.model import Listener, Rules
from txmux.telemetry.sharedmemory import grow, make, mapped

_SIZE = 8  # of a number, in bytes
_MOST = 2 ** (8 * _SIZE) - 1
# The columns that belong to no process: connections in transit, and expected ones.
_MOVING, _EXPECTED = -2, -1
_PATIENCE = 1.0  # seconds that a process waits for another one to release the lock
_REGAINED = 0.01  # of its patience in each second
_PAUSE = 0.0002  # seconds from one attempt to the next
_FEWEST = 3  # columns: moving, expected, and the supervisor's


class FileLock:
    """A lock between processes; it does not keep out the other threads of this one.

    It belongs to the process, so it is released if a process ends while holding it. It is held for microseconds. If the holder is
    stopped, or keeps it on purpose, others proceed without it, and may miscount by one: a halted worker must not halt the
    supervisor, too, which is to end it. All that a process waits is at most `_PATIENCE`, and `_REGAINED` of the time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._patience = _PATIENCE
        self._waited_at = time.monotonic()

    def __enter__(self) -> None:
        """Wait for it, as long as patience lasts."""
        if self._try_acquire():
            return
        began = now = time.monotonic()
        patience = min(_PATIENCE, self._patience + _REGAINED * (began - self._waited_at))
        while now - began < patience:
            time.sleep(_PAUSE)
            now = time.monotonic()
            if self._try_acquire():
                break
        self._waited_at, self._patience = now, max(0.0, patience - (now - began))

    def _try_acquire(self) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):  # it depends on the system which
            return False
        return True

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)


class SharedTally(Tally):
    """How many connections there are, in all workers together.

    Args:
        counter: The number in this worker, under whichever rules.
        counts: A number for each worker, which only that worker changes, and at last those of connections that are on their way
            from one process to another, and of those that are expected from another service.
    """

    def __init__(
        self, limit: int, counter: Counter, counts: memoryview[int], worker: int, lock: FileLock
    ) -> None:
        super().__init__(limit, counter)
        self._counts = counts
        self._worker = worker
        self._lock = lock

    def take(self) -> bool:
        if not self.limit:
            self._counter.count = self._counts[self._worker] = self._counter.count + 1
            return True
        with self._lock:
            free = sum(self._counts) < self.limit
            if free:
                self.add()
            return free

    def add(self) -> None:
        self._counter.count += 1
        self._counts[self._worker] = self._counter.count

    @override
    def adopt(self) -> None:
        """Count a connection from another process, which was counted as in transit, or expected."""
        with self._lock:
            self.add()
            for column in (_MOVING, _EXPECTED):
                if count := self._counts[column]:  # read once: another process may write to it
                    self._counts[column] = count - 1
                    break

    @override
    def move_away(self) -> None:
        """Count one less here, and one more that is on its way."""
        with self._lock:
            self._counts[_MOVING] = min(self._counts[_MOVING] + 1, _MOST)
            self.give_back()

    @override
    def clear_expected(self) -> None:
        with self._lock:
            self._counts[_MOVING] = 0

    def give_back(self) -> None:
        self._counter.count -= 1
        self._counts[self._worker] = self._counter.count


class LayoutError(MuxError):
    """The memory has no room for something that has to be counted."""


@attrs.define
class LimitsLayout:
    """Where each number is in the memory. A listener keeps its place while anything may count there.

    Attributes:
        columns: The highest number of processes, and two more.
        rows: Where the counts of a listener begin, or those of a backend's clients that wait; those of the service have no name.
        tables: Where the `SourceTable` of a listener begins.
    """

    columns: int
    rows: dict[str, int] = attrs.field(factory=dict)
    tables: dict[str, int] = attrs.field(factory=dict)
    size: int = LoopDetector.SIZE

    def extend(self, rules: Rules, unused: Collection[str] = ()) -> None:
        """Allocate places for all that the listeners of rules count; those of `unused` are taken before the memory grows."""
        limited = [
            listener.name
            for listener in rules.listeners
            if SourceLimits.for_listener(listener) is not None
        ]
        self._allocate(self.rows, names_counted(rules), self.columns * _SIZE, unused)
        self._allocate(self.tables, limited, SourceTable.size(self.columns), unused)

    def _allocate(
        self, places: dict[str, int], names: Iterable[str], size: int, unused: Iterable[str]
    ) -> None:
        spare = iter([name for name in unused if name in places])
        for name in names:
            if name in places:
                continue
            former = next(spare, None)
            if former is not None:
                places[name] = places.pop(former)
            else:
                places[name] = self.size
                self.size += size

    def check(self) -> None:
        table = SourceTable.size(self.columns) if self.columns >= _FEWEST else 0
        ends = [start + self.columns * _SIZE for start in self.rows.values()]
        ends += [start + table for start in self.tables.values()]
        starts = [*self.rows.values(), *self.tables.values()]
        if (
            not table
            or self.size < max(LoopDetector.SIZE, *ends, 0)
            or any(start < LoopDetector.SIZE or start % _SIZE for start in starts)
        ):
            raise LayoutError(f"not all that is counted has a place in {self.size} bytes of memory")


class SharedLimits:
    """All limits that the listeners of rules have.

    The memory has `LoopDetector`, a row of counts for the service and for each listener and backend, with a column for each process, and a
    `SourceTable` for each listener that limits sources. A process changes only its own column and the slots of sources, so
    what a worker that ended by itself leaves behind can be cleared. The first column is that of the process that makes the
    memory; the last one is that of connections that another service hands over, until they have come; the one before it is that of
    connections that have left one process of this service for another; the others are those of its workers.
    """

    def __init__(self, descriptor: int, layout: LimitsLayout) -> None:
        self.descriptor = descriptor
        self._lock = FileLock(descriptor)
        # By worker and place, not by name: should a connection outlive its listener's place, both users of it write the same number.
        self._counters: dict[tuple[int, int], Counter] = {}
        self._in_use: Callable[[Collection[str]], Collection[str]] = set
        self._memory = memoryview(b"")
        self.use(layout)
        self.loop_detector = LoopDetector(self._memory[: LoopDetector.SIZE])

    @classmethod
    def make(
        cls, rules: Rules, workers: int, in_use: Callable[[Collection[str]], Collection[str]] = set
    ) -> SharedLimits:
        """Make the memory; `in_use` returns which of these listeners keep their rows although they count nothing now."""
        descriptor = make("txmux limits")
        layout = LimitsLayout(_FEWEST + workers)
        layout.extend(rules)
        grow(descriptor, _room(layout))
        made = cls(descriptor, layout)
        made._in_use = in_use
        return made

    @property
    def workers(self) -> int:
        return self.layout.columns - _FEWEST

    def extend(self, rules: Rules) -> None:
        """Make room for other rules, too, in rows of removed listeners if these are idle; raises `OSError` if there is none."""
        before = self.layout
        layout = attrs.evolve(before, rows={**before.rows}, tables={**before.tables})
        layout.extend(rules, self._unused(rules))
        if layout != before:
            grow(self.descriptor, _room(layout))
            self.use(layout)
            for name in layout.tables.keys() - before.tables.keys():
                self._tables[name].refill()

    def _unused(self, rules: Rules) -> list[str]:
        rows, tables = self.layout.rows, self.layout.tables
        named = {*names_counted(rules)}
        idle = [
            name
            for name in {**rows, **tables}
            if name not in named and not (name in rows and any(self._row(name)))
        ]
        in_use = self._in_use(idle)
        return [name for name in idle if name not in in_use]

    def use(self, layout: LimitsLayout) -> None:
        """Follow the parent, which has made room; raises `MuxError` if there is none."""
        layout.check()
        if layout.size > len(self._memory):
            # The mapping before is unmapped with the last connection that is counted there.
            self._memory = mapped(self.descriptor, _room(layout))
        self.layout = layout
        size = SourceTable.size(layout.columns)
        self._tables = {
            name: SourceTable(
                self._memory[start : start + size],
                layout.columns,
                partial(self._written, start, size - _SIZE),
            )
            for name, start in layout.tables.items()
        }

    def admissions(
        self, worker: int, seconds: Callable[[], float], most: int
    ) -> Callable[[Listener], Admission]:
        """Return what makes the admission of a listener in a worker, counted from 1; 0 is the process that makes the memory."""

        def admission(listener: Listener) -> Admission:
            return Admission(
                listener,
                seconds,
                service=self.tally(most, "", worker),
                listener=self.tally(listener.max_connections, listener.name, worker),
                per_source=self.per_source(listener, worker, seconds),
            )

        return admission

    def tally(self, limit: int, name: str, worker: int) -> Tally:
        """Make the counter of connections of a listener, or of the service, in one of the processes."""
        if name not in self.layout.rows:  # one that the rules do not have, but older connections
            return Tally(limit)
        counter = self._counters.setdefault((worker, self.layout.rows[name]), Counter())
        return SharedTally(limit, counter, self._row(name), worker, self._lock)

    def held(self, backend: str, limit: int, worker: int) -> Tally:
        return self.tally(limit, _of_held(backend), worker)

    def _row(self, name: str) -> memoryview[int]:
        start = self.layout.rows[name]
        return self._memory[start : start + self.layout.columns * _SIZE].cast("Q")

    def per_source(
        self, listener: Listener, worker: int, seconds: Callable[[], float]
    ) -> PerSource | None:
        """Make the counters by source in one of the processes; ``None`` if there is no limit."""
        limits = SourceLimits.for_listener(listener)
        if limits is None:
            return None
        table, expected = self._tables.get(listener.name), self.layout.columns - 1
        if table is None:
            raise LayoutError(
                f"the sources of [listen {listener.name}] have no place in the memory"
            )
        return PerSource(limits, seconds, table, worker, self._lock, expected)

    def sources(self, seconds: Callable[[], float]) -> dict[str, PerSource | None]:
        """Return the counters of sources by listener, for the rates of all processes; they admit no clients."""
        limits = SourceLimits()
        return {
            name: PerSource(limits, seconds, table, 0, self._lock)
            for name, table in self._tables.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return the counts that another service is to expect, before this one hands its connections over, as JSON values."""
        return {
            "counts": {name: sum(self._row(name)) for name in self.layout.rows},
            "sources": {
                name: base64.b64encode(table.connection_counts()).decode()
                for name, table in self._tables.items()
            },
        }

    def expect(self, values: Mapping[str, Any], now: float) -> None:
        """Count connections that another service will hand over, by its `as_json`; listeners unknown here are ignored."""
        column = self.layout.columns - 1
        for name, count in values.get("counts", {}).items():
            if name in self.layout.rows:
                # It is the sum of what workers may have overwritten.
                self._row(name)[column] = min(count, _MOST)
        with self._lock:
            for name, held in values.get("sources", {}).items():
                if name in self._tables:
                    self._tables[name].reserve(base64.b64decode(held), column, int(now * 10**9))

    def expect_no_more(self) -> None:
        """Drop connections that were expected and have not come: they end where they are."""
        with self._lock:
            self.clear(self.layout.columns - 1)

    def clear(self, worker: int) -> None:
        for name in self.layout.rows:
            self._row(name)[worker] = 0
        for table in self._tables.values():
            table.clear(worker)

    def clear_expected(self) -> None:
        """Reset the count of connections in transit, after a sending or receiving worker has ended. Other workers still adopt theirs."""
        with self._lock:
            for name in self.layout.rows:
                self._row(name)[_MOVING] = 0

    def _written(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a table that were ever written; see `SourceTable`."""
        if not hasattr(os, "SEEK_DATA"):  # not every system supports it
            yield 0, size // _SIZE
            return
        at, end = start, start + size
        while at < end:
            try:
                at = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError:  # there is no more data
                return
            stop = min(os.lseek(self.descriptor, at, os.SEEK_HOLE), end)
            if at < end:
                yield (at - start) // _SIZE, -((start - stop) // _SIZE)
            at = stop

    def close(self) -> None:
        os.close(self.descriptor)


def names_counted(rules: Rules) -> list[str]:
    """Return the names of all that has a row: the service, the listeners, and the backends for their clients that wait."""
    backends = [_of_held(backend.name) for backend in rules.every_backend()]
    return ["", *[listener.name for listener in rules.listeners], *backends]


def _of_held(backend: str) -> str:
    return f"[backend {backend}]"


def _room(layout: LimitsLayout) -> int:
    """Return the size of the file: a power of two, since each growth maps it once more while older connections keep the old mapping.

    Of what is not written, the system keeps nothing.
    """
    return 1 << (layout.size - 1).bit_length()
