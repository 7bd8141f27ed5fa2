"""What the processes of this program have counted for servers since the last reading."""

from __future__ import annotations

import operator
from collections import defaultdict
from mmap import mmap

from txmux.telemetry.counting import counter_groups as groups
from txmux.telemetry.counting.counters import Counters, changed_blocks
from txmux.telemetry.counting.process_counters import Image

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
