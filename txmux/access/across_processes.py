"""The limits of several processes together: their counts are in one memory file with one lock.

Theory of operation. The memory outlives the service that made it: an upgrade hands it on, so what stays in the old processes counts for
the new ones, and whichever process serves finds the same counts, rates and table names. Each worker has a column of its own, which
only that worker changes. The memory says which process a column belongs to. When that process has ended, its supervisor clears
the column; if the supervisor has ended, too, any other supervisor of the chain does.

A connection that moves counts in a column of its own from when one process has let go of it until another has adopted it. That one
counts in a row what it is offered, before the first lets go: so once no process awaits anything, what is left there has been lost. By a
number of all moves, which never falls, each supervisor knows whether anything may be left since it last looked.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from twisted.logger import Logger
from typing_extensions import override

from txmux.access.admission import Admission, Counter, Tally
from txmux.access.loops import LoopDetector
from txmux.access.per_source import PerSource, SourceLimits, SourceTable
from txmux.classes import define
from txmux.errors import MuxError
from txmux.rules.model import Listener, Rules
from txmux.telemetry.sharedmemory import grow, make, mapped, written

_SIZE = 8  # of a number, in bytes
_MOST = 2 ** (8 * _SIZE) - 1
_AWAITED = "[awaited]"  # a row, of what processes are offered
_MOVING = -1  # the column that belongs to no process: connections in transit
_PATIENCE = 1.0  # seconds that a process waits for another one to release the lock
_REGAINED = 0.01  # of its patience in each second
_PAUSE = 0.0002  # seconds from one attempt to the next
# Columns: that of connections in transit, and the first one, which belongs to no worker.
_FEWEST = 2
_FEWEST_WORKERS = 16
"""The memory has room for this many workers, or for twice those of the rules if that is more."""
_GENERATIONS = 3
"""Columns for each worker that a service may have: processes that an upgrade has replaced keep theirs until they end."""
_FORMAT = 4
"""The version of what is in the memory; a service of another version makes memory of its own."""


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
        counts: A number for each worker, which only that worker changes, and at last that of connections that are on their way
            from one process to another.
        moves: The number of all that ever were on their way, which it raises.
    """

    def __init__(
        self,
        limit: int,
        counter: Counter,
        counts: memoryview[int],
        worker: int,
        lock: FileLock,
        moves: memoryview[int],
    ) -> None:
        super().__init__(limit, counter)
        self._moves = moves
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
        """Count a connection from another process, which was counted as in transit."""
        with self._lock:
            self.add()
            if count := self._counts[_MOVING]:  # read once: another process may write to it
                self._counts[_MOVING] = count - 1

    @override
    def move_away(self) -> None:
        """Count one less here, and one more that is on its way."""
        with self._lock:
            self._counts[_MOVING] = min(self._counts[_MOVING] + 1, _MOST)
            self._moves[0] = (self._moves[0] + 1) & _MOST
            self.give_back()

    def give_back(self) -> None:
        self._counter.count -= 1
        self._counts[self._worker] = self._counter.count


class LayoutError(MuxError):
    """The memory has no room for something that has to be counted."""


@define
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
    size: int = attrs.field()

    @size.default
    def _first_free(self) -> int:
        return LoopDetector.SIZE + self.columns * _SIZE

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> LimitsLayout:
        """Read `SharedLimits.handed_over` of another service; raises `LayoutError`."""
        if values.get("format") != _FORMAT:
            raise LayoutError("it counts in another way")
        try:
            layout = cls(**values["layout"])
            layout.check()
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise LayoutError(repr(problem)) from problem
        return layout

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
        self, positions: dict[str, int], names: Iterable[str], size: int, unused: Iterable[str]
    ) -> None:
        spare = iter([name for name in unused if name in positions])
        for name in names:
            if name in positions:
                continue
            former = next(spare, None)
            if former is not None:
                positions[name] = positions.pop(former)
            else:
                positions[name] = self.size
                self.size += size

    def changes(self, before: LimitsLayout) -> dict[str, Any]:
        """Return what is different from an earlier layout, as JSON values for `changed`."""
        return {
            "rows": dict(self.rows.items() - before.rows.items()),
            "tables": dict(self.tables.items() - before.tables.items()),
            "gone_rows": [*before.rows.keys() - self.rows.keys()],
            "gone_tables": [*before.tables.keys() - self.tables.keys()],
            "size": self.size,
        }

    def changed(
        self,
        rows: dict[str, int],
        tables: dict[str, int],
        gone_rows: Iterable[str],
        gone_tables: Iterable[str],
        size: int,
    ) -> LimitsLayout:
        """Return the layout with changes; only these are checked."""
        LimitsLayout(self.columns, rows, tables, size).check()
        made = LimitsLayout(self.columns, {**self.rows, **rows}, {**self.tables, **tables}, size)
        for places, names in ((made.rows, gone_rows), (made.tables, gone_tables)):
            for name in names:
                places.pop(name, None)
        return made

    def check(self) -> None:
        table = SourceTable.size(self.columns) if self.columns >= _FEWEST else 0
        ends = [start + self.columns * _SIZE for start in self.rows.values()]
        ends += [start + table for start in self.tables.values()]
        starts = [*self.rows.values(), *self.tables.values()]
        if (
            not table
            or self.size < max(self._first_free(), *ends, 0)
            or any(start < self._first_free() or start % _SIZE for start in starts)
        ):
            raise LayoutError(f"not all that is counted has a place in {self.size} bytes of memory")


class SharedLimits:
    """All limits that the listeners of rules have.

    The memory has `LoopDetector`, the process ID that each column belongs to (that of what moves has the number of all moves), a row of
    counts for the service and for each listener and backend, with a column for each process, and a `SourceTable` for each listener that
    limits sources. A process changes only its own column and the slots of sources, so what a worker that ended by itself leaves behind can
    be cleared. The first column belongs to no worker, unless there are more than columns; the last one is that of connections that have
    left one process for another.

    Args:
        workers: The highest number of workers that this service may have.
    """

    _log = Logger()
    layout: LimitsLayout

    def __init__(self, descriptor: int, layout: LimitsLayout, workers: int = 0) -> None:
        self.descriptor = descriptor
        self._most_workers = workers
        self._columns: dict[int, int] = {}  # by the number of a worker of this service
        self._moves_seen = -1  # when this process last found that none was under way
        self._lock = FileLock(descriptor)
        # By worker and place, not by name: should a connection outlive its listener's place, both users of it write the same number.
        self._counters: dict[tuple[int, int], Counter] = {}
        self._in_use: Callable[[Collection[str]], Collection[str]] = set
        self.memory = memoryview(b"")
        self.remap(layout)
        self.loop_detector = LoopDetector(self.memory[: LoopDetector.SIZE])

    @classmethod
    def of_service(
        cls,
        rules_in_force: Callable[[], Rules],
        has_connections: Callable[[str], bool],
        before: tuple[int, Mapping[str, Any]] | None,
    ) -> SharedLimits:
        """Make the memory, or continue with that of the service which this one replaces.

        Args:
            rules_in_force: Returns them.
            has_connections: Returns whether a listener has some, by its name.
            before: The memory of the other service, which is closed if it cannot be used, and what is where in it.
        """

        def in_use(names: Collection[str]) -> set[str]:
            in_rules = {*names_counted(rules_in_force())}
            return {name for name in names if name in in_rules or has_connections(name)}

        rules = rules_in_force()
        workers = max(_FEWEST_WORKERS, 2 * rules.settings.workers)
        if before is not None:
            descriptor, values = before
            try:
                return cls.adopt(descriptor, values, workers, in_use)
            except MuxError as problem:
                os.close(descriptor)
                cls._log.warn(
                    "limits do not count the connections that stay in the old process: {why}",
                    why=problem,
                )
        return cls.make(rules, workers, in_use)

    @classmethod
    def make(
        cls, rules: Rules, workers: int, in_use: Callable[[Collection[str]], Collection[str]] = set
    ) -> SharedLimits:
        """Make the memory; `in_use` returns which of these listeners keep their rows although they count nothing now."""
        descriptor = make("txmux limits")
        layout = LimitsLayout(_FEWEST + _GENERATIONS * workers)
        layout.extend(rules)
        grow(descriptor, _room(layout))
        made = cls(descriptor, layout, workers)
        made._in_use = in_use
        return made

    def handed_over(self) -> dict[str, Any]:
        return {"format": _FORMAT, "file": self._file, "layout": attrs.asdict(self.layout)}

    @property
    def _file(self) -> int:
        # Shows a service whether another one has the same memory.
        return os.fstat(self.descriptor).st_ino

    @classmethod
    def adopt(
        cls,
        descriptor: int,
        values: Mapping[str, Any],
        workers: int,
        in_use: Callable[[Collection[str]], Collection[str]] = set,
    ) -> SharedLimits:
        """Continue with the memory of another service, by its `handed_over`.

        Raises:
            MuxError: It is of another version, or there are not as many free columns as this service may have workers.
        """
        taken = cls(descriptor, LimitsLayout.read(values), workers)
        taken._in_use = in_use
        taken.collect()
        if taken.workers < workers:
            raise LayoutError("too many processes of earlier upgrades have connections")
        return taken

    def follow(self, values: Mapping[str, Any]) -> None:
        """Keep what another service has placed in the memory, by its `handed_over`, unless that has memory of its own."""
        with suppress(MuxError):
            if values.get("file") == self._file:
                self.remap(LimitsLayout.read(values))

    @property
    def workers(self) -> int:
        """The highest number of workers that this service may have now."""
        free = sum(not owner for owner in self._owners[1:])
        return min(self._most_workers, free + len(self._columns))

    def assign(self, worker: int, pid: int) -> int:
        """Return the column of a worker's process from now on; the first one if all others are in use, where it may miscount."""
        self.collect()
        with self._lock:
            columns = range(1, len(self._owners))
            free = (column for column in columns if not self._owners[column])
            column = self._columns[worker] = next(free, 0)
            if column:
                self._owners[column] = pid
        return column

    def collect(self) -> None:
        """Clear the columns of processes that have ended, where no other supervisor does, and that of connections in transit if none are."""
        own, moves = {*self._columns.values()}, self._moves[0]
        if moves == self._moves_seen and all(_is_running(owner) for owner in {*self._owners} - {0}):
            return
        with self._lock:  # another supervisor may be about to do the same, and assign the column
            for column, owner in enumerate(self._owners):
                if owner and column not in own and not _is_running(owner):
                    self.clear(column)
                    self._owners[column] = 0
            # One that ended has left them, or one whose rules do not limit sources has taken them.
            if not any(self.row(_AWAITED)):
                self.clear(self.layout.columns - 1)
                self._moves_seen = moves

    def worker_ended(self, worker: int) -> None:
        column = self._columns.pop(worker, 0)
        if column:
            self.clear(column)
            self._owners[column] = 0
        self.collect()

    @property
    def _is_shared(self) -> bool:
        """Whether workers of another service count here, too."""
        own = {*self._columns.values()}
        return any(
            owner and column not in own for column, owner in enumerate(self._owners.tolist())
        )

    def extend(self, rules: Rules) -> None:
        """Make room for other rules, too, in rows of removed listeners if these are idle; raises `OSError` if there is none."""
        before = self.layout
        layout = attrs.evolve(before, rows={**before.rows}, tables={**before.tables})
        layout.extend(rules, self._unused(rules))
        if layout != before:
            grow(self.descriptor, _room(layout))
            self.remap(layout)
            for name in layout.tables.keys() - before.tables.keys():
                self.tables[name].refill()

    def _unused(self, rules: Rules) -> list[str]:
        if self._is_shared:  # the other service still knows them by their names
            return []
        rows, tables = self.layout.rows, self.layout.tables
        named = {*names_counted(rules)}
        idle = [
            name
            for name in {**rows, **tables}
            if name not in named and not (name in rows and any(self.row(name)))
        ]
        in_use = self._in_use(idle) if idle else ()
        return [name for name in idle if name not in in_use]

    def remap(self, layout: LimitsLayout) -> None:
        """Follow the parent, which has made room; raises `MuxError` if there is none."""
        layout.check()
        self._remap(layout)

    def remap_changed(self, **changes: Any) -> None:
        """Change the layout by `LimitsLayout.changed`, and map the memory again if that needs it."""
        before = self.layout
        self.layout = layout = before.changed(**changes)
        if layout.size > len(self.memory) or layout.tables != before.tables:
            self._remap(layout)

    def _remap(self, layout: LimitsLayout) -> None:
        if layout.size > len(self.memory):
            # The mapping before is unmapped with the last connection that is counted there.
            self.memory = mapped(self.descriptor, _room(layout))
        self.layout = layout
        owners = slice(LoopDetector.SIZE, LoopDetector.SIZE + layout.columns * _SIZE)
        numbers = self.memory[owners].cast("Q")
        self._owners, self._moves = numbers[:_MOVING], numbers[_MOVING:]
        size = SourceTable.size(layout.columns)
        self.tables = {
            name: SourceTable(
                self.memory[start : start + size],
                layout.columns,
                partial(_written_numbers, self.descriptor, start, size - _SIZE),
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
        return SharedTally(limit, counter, self.row(name), worker, self._lock, self._moves)

    def held(self, backend: str, limit: int, worker: int) -> Tally:
        return self.tally(limit, _of_held(backend), worker)

    def awaited(self, worker: int) -> Tally:
        """Make the counter of batches of connections that a process is offered; before it counts one, none of these moves."""
        return self.tally(0, _AWAITED, worker)

    def row(self, name: str) -> memoryview[int]:
        start = self.layout.rows[name]
        return self.memory[start : start + self.layout.columns * _SIZE].cast("Q")

    def per_source(
        self, listener: Listener, worker: int, seconds: Callable[[], float]
    ) -> PerSource | None:
        """Make the counters by source in one of the processes; ``None`` if there is no limit."""
        limits = SourceLimits.for_listener(listener)
        if limits is None:
            return None
        table, moving = self.tables.get(listener.name), self.layout.columns - 1
        if table is None:
            message = f"the sources of [listen {listener.name}] have no place in the memory"
            raise LayoutError(message)
        return PerSource(limits, seconds, table, worker, self._lock, moving)

    def sources(
        self, seconds: Callable[[], float], listeners: Iterable[Listener] = ()
    ) -> dict[str, PerSource | None]:
        """Return the counters of sources by listener, of all processes, with the limits of some; they admit no clients."""
        limits = {listener.name: SourceLimits.for_listener(listener) for listener in listeners}
        return {
            name: PerSource(limits.get(name) or SourceLimits(), seconds, table, 0, self._lock)
            for name, table in self.tables.items()
        }

    def forget_elsewhere(self) -> None:
        """Count nothing of other machines, until one that owns this memory alone hears of them."""
        for table in self.tables.values():
            table.forget_elsewhere()

    def clear(self, column: int) -> None:
        for name in self.layout.rows:
            self.row(name)[column] = 0
        for table in self.tables.values():
            table.clear(column)

    def close(self) -> None:
        os.close(self.descriptor)


def names_counted(rules: Rules) -> Sequence[str]:
    return rules.once(names_counted, _names_counted)


def _names_counted(rules: Rules) -> Sequence[str]:
    backends = [_of_held(backend.name) for backend in rules.every_backend()]
    return ["", _AWAITED, *[listener.name for listener in rules.listeners], *backends]


def _written_numbers(descriptor: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a table that were ever written; see `SourceTable`."""
    for part in written(descriptor, start, start + size):
        yield (part.start - start) // _SIZE, -((start - part.stop) // _SIZE)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):  # the memory may have been overwritten
        return False
    return True


def _of_held(backend: str) -> str:
    return f"[backend {backend}]"


def _room(layout: LimitsLayout) -> int:
    """Return the size of the file: a power of two, since each growth maps it once more while older connections keep the old mapping.

    Of what is not written, the system keeps nothing.
    """
    return 1 << (layout.size - 1).bit_length()
