"""The counters of all processes of a service together."""

from __future__ import annotations

import operator
import os
import weakref
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, filterfalse
from mmap import mmap
from typing import Any

from txmux.classes import define, frozen
from txmux.rules.model import Rules
from txmux.telemetry.counting import counter_groups as groups
from txmux.telemetry.counting.counter_rows import Totals
from txmux.telemetry.counting.process_counters import CounterLayout, Image, ProcessCounters, keys_of
from txmux.telemetry.sharedmemory import grow, make

_Named = dict[str, dict[str, int]]

_Column = tuple[Mapping[str, int], tuple[list[str], list[int]], Image]

OWN = 0  # the number of the service's own process, if it serves


def keys_needed(rules: Rules) -> dict[str, None]:
    return {groups.PROCESS.key(): None, **dict.fromkeys(keys_of(rules))}


class Counters:
    """Adds up the `ProcessCounters` (a column) of each process that serves or has served.

    Numbers only grow: those of a process that has ended are kept here. Its successor gets other memory, since what the process has
    started may live on, and write to its own. A block of removed rules stays until no connection can count there.

    Attributes:
        columns: By the numbers of the processes.
        on_ended: Called with the number of a process that has ended, and its cells as they are in memory.
    """

    def __init__(self) -> None:
        self.layout = CounterLayout()
        self.layout.extend([groups.PROCESS.key()])
        self.columns: dict[int, ProcessCounters] = {}
        self.others: list[CountingProgram] = []
        self._pipe: tuple[int, int] | None = None
        # Sums of processes that have ended, and of earlier programs that could not hand over their memory.
        self._past: list[dict[str, list[int]]] = []
        # By key, the first version of the rules that have it; and the last one, if it was removed.
        self._since: dict[str, int] = {}
        self._until: dict[str, int] = {}
        # Free blocks, by their kind.
        self._spare: dict[str, list[int]] = {}
        self._versions: frozenset[int] | None = None
        self.on_ended: Callable[[int, Image], object] = lambda _number, _image: None

    def extend(
        self, rules: Rules, number: int = 0, needed: Mapping[str, None] | None = None
    ) -> None:
        """Add blocks for the next rules; `number` is the version of the current ones, `needed` what `keys_needed` has found."""
        needed = keys_needed(rules) if needed is None else needed
        # By calls of C: there are many keys, and few are new or gone.
        places = self.layout.places
        new = [*filterfalse(places.__contains__, needed)]
        self._since.update(dict.fromkeys(new, number + 1))
        self.layout.extend(new, self._spare)
        for column in self.columns.values():
            self.grow(column)
        unneeded = filterfalse(needed.__contains__, places)
        self._until = {key: self._until.get(key, number) for key in unneeded}
        if not self._until:
            self._versions = None  # `forget` is not called

    @property
    def has_unneeded(self) -> bool:
        return bool(self._until)

    def forget(self, versions: Collection[int]) -> None:
        """Free the blocks of rules whose versions are used by no connection in any process, now and at the call before.

        A connection that is being handed to another process is missing from `versions` for a moment; hence the call before.
        """
        before, self._versions = self._versions, frozenset(versions)
        if before is None:
            return
        in_use = before | self._versions
        gone = [
            key
            for key, last in self._until.items()
            if not any(self._since.get(key, 0) <= number <= last for number in in_use)
        ]
        for key in gone:
            for column in self.columns.values():
                block = column.block(key)
                block[:] = memoryview(bytes(block.nbytes)).cast("Q")
            self._spare.setdefault(key.partition("\n")[0], []).append(self.layout.remove(key))
            del self._until[key]
            self._since.pop(key, None)
        if gone:
            self._past = [
                {key: block for key, block in past.items() if key in self.layout.places}
                for past in self._past
            ]

    def grow(self, column: ProcessCounters) -> None:
        assert column.descriptor is not None  # noqa: S101 - each of these has one
        grow(column.descriptor, self.layout.size)
        column.remap()

    def column(self, number: int) -> ProcessCounters:
        """Return the column of a process."""
        column = self.columns.get(number)
        if column is None:
            descriptor = make("txmux counters")
            grow(descriptor, self.layout.size)
            column = self.columns[number] = ProcessCounters(self.layout, descriptor)
        return column

    def cells(self, key: str) -> list[int]:
        """Add up the cells of one key; for many, use `read`."""
        columns = [*self._running_others(), *self.columns.values()]
        blocks = [totals[key] for totals in self._past if key in totals]
        blocks += [column.block(key).tolist() for column in columns]
        return _group(key).combine(blocks)

    def images(self) -> dict[int, Image]:
        return {number: column.image() for number, column in self.columns.items()}

    def has_connections(self, listener: str) -> bool:
        key = groups.LISTENER.key(listener)
        cells = self.cells(key) if key in self.layout.places else []
        return bool(cells) and groups.live(cells) > 0

    @staticmethod
    def live_in(column: ProcessCounters | None) -> int:
        return 0 if column is None else _live(column)

    def connections_elsewhere(
        self, servers: Iterable[tuple[str, str]], retiring: Collection[int]
    ) -> dict[tuple[str, str], int]:
        """Count the connections to servers, by backend and text, of earlier programs that still run, and of some columns of this one."""
        columns = [*self._running_others()]
        columns += [column for number, column in self.columns.items() if number in retiring]
        if not columns:
            return {}
        return {
            server: sum(
                groups.live_on_server(column.block(groups.SERVER.key(*server)))
                for column in columns
            )
            for server in servers
        }

    def read(self) -> CountersReading:
        """Return the current numbers."""
        images = self._images()  # which may add to what is past
        return CountersReading(images, [*self._past])

    def _images(self) -> list[_Column]:
        # In a copy of the layout, a block that is reused meanwhile still belongs to its old key.
        places, ordered = dict(self.layout.places), self.layout.ordered()
        others = ((its.layout, its.image()) for its in self._running_others())
        images: list[_Column] = [(its.places, its.ordered(), image) for its, image in others]
        return images + [(places, ordered, its.image()) for its in self.columns.values()]

    def _running_others(self) -> list[ProcessCounters]:
        """Return the columns of earlier programs that still run."""
        self.others_ended()
        return [column for other in self.others for column in other.columns]

    # Processes that end.

    def ended(self, number: int) -> int:
        """Count the connections of a dead process, by the number of its column, as ended, and return their number."""
        column = self.columns.pop(number, None)
        if column is None:
            return 0
        self.on_ended(number, column.image())
        blocks = _blocks(column)
        lost = groups.settle(blocks)
        self._past = [_added([*self._past, blocks])]
        return lost

    def adopted_ended(self, column: ProcessCounters) -> int:
        """The same for a process of another program."""
        blocks = _blocks(column)
        lost = groups.settle(blocks)
        for other in self.others:
            if column in other.columns:
                other.columns.remove(column)
                self._past.append(blocks)
        return lost

    # Other programs, at an upgrade.

    def adopt_process(self, file: int) -> ProcessCounters | None:
        """Return the column of a process of another program which this one supervises from now on, by its `ProcessCounters.inode`."""
        for other in self.others:
            for column in other.columns:
                if column.inode == file:
                    other.pid = os.getpid()
                    return column
        return None

    def settle_dead(self, files: Collection[int]) -> None:
        """Count the connections of those that had ended before they could be adopted as ended, too; `files` are of those that are adopted."""
        for other in self.others:
            if other.pid == os.getpid():
                for column in [one for one in other.columns if one.inode not in files]:
                    if _live(column):  # else it may be the supervisor's, which still counts
                        self.adopted_ended(column)

    def adopt_files(self, files: Sequence[int]) -> None:
        """Count what processes of the last program have in files that came after `adopt`; others are closed."""
        for file in files:
            known = [column.inode for other in self.others for column in other.columns]
            last = self.others[:1] if os.fstat(file).st_ino not in known else ()
            if last and (columns := last[0].columns):
                columns.append(ProcessCounters(columns[0].layout, file))
            else:
                os.close(file)

    @property
    def life(self) -> int:
        """The writing end of a pipe that each process of this program keeps open; its reader sees when all have ended."""
        return self._both_ends()[1]

    def _both_ends(self) -> tuple[int, int]:
        if self._pipe is None:
            self._pipe = reads, writes = os.pipe()
            os.set_blocking(reads, False)
            weakref.finalize(self, _close, reads, writes)
        return self._pipe

    def programs(self) -> list[CountingProgram]:
        """Return this program and each before it that still runs, since each ends by itself; it may fail for want of a descriptor."""
        self.others_ended()
        columns, past = [*self.columns.values()], [*self._past]
        return [CountingProgram(self._both_ends()[0], columns, os.getpid(), past), *self.others]

    def adopt(
        self,
        descriptors: Sequence[int],
        layouts: Sequence[dict[str, Any]],
        past: Sequence[_Named],
        all: Sequence[_Named],  # noqa: A002 - the name in the message
        format: str = "",  # noqa: A002 - as above
        pid: int = 0,
    ) -> None:
        """Continue the numbers of another program, and take over its files and the reading end of its pipe, which comes first.

        `past` are the sums that it has from others; `all` is what is in the files, by the names of cells, for a program with other cells.
        """
        self._past += map(_read, past)
        life, *files = descriptors
        if format == groups.FORMAT:
            layout = CounterLayout(**layouts[0]) if layouts else None  # else there are no files
            columns = [ProcessCounters(layout, file) for file in files]
            other = CountingProgram(life, columns, pid)
            weakref.finalize(other, os.close, life)
            self.others.append(other)
        else:
            _close(*descriptors)
            # Connections that move here are counted here; others cannot be seen.
            moved = [_read(named) for named in all]
            for blocks in moved:
                groups.settle(blocks, has_crashed=False)
            self._past += moved
        before = [*self._past, *map(_blocks, self._running_others())]
        self.layout.extend(key for blocks in before for key in blocks)
        for column in self.columns.values():
            self.grow(column)

    def left_behind(self) -> tuple[int, int]:
        """Count the connections of earlier programs that still run, and of workers that have outlived their supervisor."""
        counts = [0, 0]
        for other in self.others:
            if not other.has_ended():
                counts[other.has_no_supervisor()] += sum(map(_live, other.columns))
        return counts[0], counts[1]

    def held(self) -> Mapping[str, int]:
        """Count the clients that wait for a server, by backend, also in earlier programs that still run."""
        reading = CountersReading(self._images(), ())
        clients = {names[0]: groups.held(cells) for names, cells in reading.counted(groups.BACKEND)}
        return {backend: count for backend, count in clients.items() if count > 0}

    def others_ended(self) -> None:
        """Keep only the sums of programs that have ended."""
        for other in [other for other in self.others if other.has_ended()]:
            self.others.remove(other)
            for column in other.columns:
                blocks = _blocks(column)
                groups.settle(blocks)
                self._past.append(blocks)
        if len(self._past) > 1:
            self._past = [_added(self._past)]


@define(eq=False)
class CountingProgram:
    """A program that may still count; `life` is the reading end of its pipe, `pid` its supervisor, if known, and `past` what it has of others."""

    life: int
    columns: list[ProcessCounters]
    pid: int = 0
    past: Sequence[dict[str, list[int]]] = ()

    def has_no_supervisor(self) -> bool:
        try:
            os.kill(self.pid, 0)  # 0, if it is unknown, stands for this one
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def has_ended(self) -> bool:
        try:
            # All of it: only a worker that was taken over writes there.
            return not os.read(self.life, 2**16)
        except BlockingIOError:
            return False

    def lent(self) -> tuple[dict[str, Any], list[int]]:
        """Return the arguments of `Counters.adopt` in another program, as values of JSON, and the descriptors that go with them.

        Both programs map the same memory then, so that one sees what still happens here.
        """
        arguments = {
            "format": groups.FORMAT,
            "pid": self.pid,
            "layouts": [column.layout.as_json() for column in self.columns[:1]],  # all have it
            "past": [],
            "all": [],
        }
        files = [column.descriptor for column in self.columns if column.descriptor is not None]
        return arguments, [self.life, *files]

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return the same with all that has been counted, for the next program; a thread may call it."""
        arguments, files = self.lent()
        arguments["past"] = [*map(_named, self.past)]
        arguments["all"] = [_named(_blocks(column)) for column in self.columns]
        return arguments, files


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _group(key: str) -> type[Totals]:
    return groups.BLOCKS[key.partition("\n")[0]]


@frozen(eq=False)
class CountersReading:
    """The numbers of one moment. Only what is asked for is added up, since there may be very many routes.

    Attributes:
        columns: Of each process, the places of its blocks, the same in order, and its cells.
        past: Blocks of programs that have ended.
    """

    _columns: Sequence[_Column]
    _past: Sequence[Mapping[str, list[int]]]

    def cells(self, key: str) -> Sequence[int]:
        group = _group(key)
        return group.combine(self._blocks(key, len(group.names)))

    def counted(self, group: type[Totals]) -> Iterator[tuple[list[str], Sequence[int]]]:
        """Yield the names and cells of the blocks of a group in which anything is counted; all others together cost next to nothing."""
        keys = dict.fromkeys(chain(*self._past))
        for _, ordered, image in self._columns:
            keys |= dict.fromkeys(changed_blocks(*ordered, image))
        for key in keys:
            kind, *names = key.split("\n")
            if kind == group.kind and any(cells := self.cells(key)):
                yield names, cells

    def _blocks(self, key: str, size: int) -> list[list[int]]:
        blocks = [block[key] for block in self._past if key in block]
        for places, _, image in self._columns:
            start = places.get(key)
            if start is None:
                continue
            cells = image.cells[start * groups.CELL : (start + size) * groups.CELL]
            if cells.strip(b"\0"):
                blocks.append(memoryview(cells).cast("Q").tolist())
        return blocks


_CHUNK = 1 << 12  # bytes


def changed_blocks(
    order: Sequence[str], starts: Sequence[int], image: Image, before: bytes | mmap = b""
) -> Iterator[str]:
    """Yield the keys of the blocks in which something was counted since earlier cells, or ever, and of some beside these."""
    for written in image.written:
        for at in range(written.start, written.stop, _CHUNK):
            end = min(at + _CHUNK, written.stop)
            chunk = image.cells[at:end]
            if chunk != before[at:end].ljust(len(chunk), b"\0"):
                first = bisect_right(starts, at // groups.CELL) - 1
                yield from order[max(first, 0) : bisect_left(starts, end // groups.CELL)]


def _live(column: ProcessCounters) -> int:
    kinds = ((key, key.partition("\n")[0]) for key in column.layout.places)
    return sum(
        groups.live(column.block(key)) for key, kind in kinds if kind == groups.LISTENER.kind
    )


def _blocks(column: ProcessCounters) -> dict[str, list[int]]:
    """Return the blocks of a column that are not all zero."""
    cells, blocks = column.tolist(), {}
    for key, start in dict(column.layout.places).items():  # a thread may read them
        block = cells[start : start + len(_group(key).names)]
        if any(block):
            blocks[key] = block
    return blocks


def _named(blocks: dict[str, list[int]]) -> _Named:
    """Name the cells, for a program that may have others."""
    return {
        key: {name: cell for name, cell in zip(_group(key).names, block, strict=True) if cell}
        for key, block in blocks.items()
    }


def _read(named: _Named) -> dict[str, list[int]]:
    """Undo `_named`; unknown keys and cells are left out."""
    return {
        key: [int(cells.get(name, 0)) for name in groups.BLOCKS[kind].names]
        for key, cells in named.items()
        if (kind := key.partition("\n")[0]) in groups.BLOCKS
    }


def _added(several: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Add up sums of several programs, so that memory does not grow with upgrades."""
    blocks: dict[str, list[list[int]]] = {}
    for sums in several:
        for key, block in sums.items():
            blocks.setdefault(key, []).append(block)
    return {key: _group(key).combine(found) for key, found in blocks.items()}


_SIZE = len(groups.SERVER.names)
_PREFIX = f"{groups.SERVER.kind}\n"


class ServerChanges:
    """Reads only blocks that have changed, so that a quiet service with very many servers costs next to nothing."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._read: dict[int, bytes | mmap] = {}
        self._changes: dict[tuple[str, str], list[int]] = {}
        self._sources: dict[tuple[str, str], _Sources] = defaultdict(_no_sources)
        counters.on_ended = self._process_ended

    def take(self) -> dict[tuple[str, str], tuple[list[int], set[int], set[int]]]:
        """Return by how much the cells of each server have grown since the last call, and which sources wait, and were reset."""
        for number, image in self._counters.images().items():
            self._add(number, image)
        changes, self._changes = self._changes, {}
        sources, self._sources = self._sources, defaultdict(_no_sources)
        return {key: (grown, *sources[key]) for key, grown in changes.items()}

    def _process_ended(self, number: int, image: Image) -> None:
        self._add(number, image)
        self._read.pop(number, None)  # the next process of this number begins anew

    def _add(self, number: int, image: Image) -> None:
        now, before = image.cells, self._read.get(number, b"")
        self._read[number] = now
        layout = self._counters.layout
        changed = dict.fromkeys(changed_blocks(*layout.ordered(), image, before))
        for name in changed:
            start = layout.places[name]
            place = slice(start * groups.CELL, (start + _SIZE) * groups.CELL)
            block, block_before = now[place], before[place].ljust(_SIZE * groups.CELL, b"\0")
            # Of very many, few have changed: only their names are taken apart.
            if name.startswith(_PREFIX) and block != block_before:
                _, backend, server = name.split("\n", 2)
                key = backend, server
                cells_before, cells_now = _cells(block_before), _cells(block)
                for sources, where in zip(
                    self._sources[key], (groups.WAITING, groups.RESET), strict=True
                ):
                    sources.update(groups.sources_in(cells_before[where], cells_now[where]))
                grown = _grown(cells_before, cells_now)
                known = self._changes.get(key)
                self._changes[key] = (
                    grown if known is None else list(map(operator.add, known, grown))
                )


_Sources = tuple[set[int], set[int]]


def _no_sources() -> _Sources:
    return set(), set()


def _cells(image: bytes) -> list[int]:
    return memoryview(image).cast("Q").tolist()


def _grown(before: list[int], now: list[int]) -> list[int]:
    grown = list(map(operator.sub, now, before))
    for at, _ in groups.SERVER.others:  # these do not only grow
        grown[at] = 0
    return now if min(grown) < 0 else grown  # the block was another server's
