"""The memory in which one process counts."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import filterfalse
from mmap import mmap
from typing import Any

import attrs
from attrs.validators import deep_mapping, ge, instance_of

from txmux.classes import define, frozen
from txmux.rules.model import SHORT_FORM, Listener, Route, Rules
from txmux.rules.model.rules import each_once
from txmux.telemetry.counting import counter_groups as groups
from txmux.telemetry.sharedmemory import mapped, written

_STEP = 1 << 16  # bytes by which memory grows; pages that are not written to take none


def routes_of(rules: Rules, listener: Listener) -> Iterator[Route]:
    """Return the routes that may take a listener's clients, those inside TLS and tunnels included, each once."""
    return each_once(rules.routes_of(listener), rules.routes_of)


def keys_of(rules: Rules) -> Iterator[str]:
    for listener in rules.listeners:
        yield groups.LISTENER.key(listener.name)
        yield groups.ROUTE.key(listener.name, groups.NO_ROUTE)
        if listener.silent:
            yield groups.ROUTE.key(listener.name, SHORT_FORM)
        for route in routes_of(rules, listener):
            yield groups.ROUTE.key(listener.name, route.name)
    for backend in rules.every_backend():
        yield groups.BACKEND.key(backend.name)
        for server in backend.servers:
            yield groups.SERVER.key(backend.name, server.text)


@define
class CounterLayout:
    """Where each block is. A block keeps its position while a process may count there."""

    places: dict[str, int] = attrs.field(
        factory=dict, validator=deep_mapping(instance_of(str), instance_of(int), instance_of(dict))
    )
    cells: int = attrs.field(default=0, validator=(instance_of(int), ge(0)))
    _ordered: tuple[list[str], list[int]] | None = attrs.field(default=None, init=False, eq=False)

    def as_json(self) -> dict[str, Any]:
        return {"places": self.places, "cells": self.cells}

    def ordered(self) -> tuple[list[str], list[int]]:
        """Return all keys, and where their blocks are, by place; both are as they were when something changes."""
        if self._ordered is None:
            order = sorted(self.places, key=self.places.__getitem__)
            self._ordered = order, [*map(self.places.__getitem__, order)]
        return self._ordered

    def remove(self, key: str) -> int:
        self._ordered = None
        return self.places.pop(key)

    def extend(self, keys: Iterable[str], spare: Mapping[str, list[int]] | None = None) -> None:
        """Add blocks for new keys; those of `spare`, by their kind, are used again and removed from it."""
        self._ordered = None
        for key in keys:
            if key not in self.places:
                kind = key.partition("\n")[0]
                if spare and spare.get(kind):
                    self.places[key] = spare[kind].pop()
                else:
                    self.places[key] = self.cells
                    self.cells += len(groups.BLOCKS[kind].names)

    def changes(self, known: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        """Return which blocks are new or moved, and which keys were removed, since `known`."""
        new = {key: start for key, start in self.places.items() if known.get(key) != start}
        return new, [*filterfalse(self.places.__contains__, known)]

    @property
    def size(self) -> int:
        return max(1, -(-self.cells * groups.CELL // _STEP)) * _STEP


@frozen
class Image:
    """The bytes of all cells, and in which places of them anything was ever counted, which are few of very many."""

    cells: bytes | mmap
    written: Sequence[range]


class ProcessCounters:
    """The counters of one process; only that process adds to them. A file smaller than the layout is an error, and stays open."""

    def __init__(self, layout: CounterLayout | None = None, descriptor: int | None = None) -> None:
        self.layout = layout or CounterLayout()
        self.descriptor = descriptor
        self._own: dict[str, memoryview[int]] = {}
        self.cells = memoryview(b"").cast("Q")
        self.remap()
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)
        self.process = groups.ProcessCounts(self.block(groups.PROCESS.key()))

    @property
    def inode(self) -> int:
        """Two processes of a service see the same one."""
        return 0 if self.descriptor is None else os.fstat(self.descriptor).st_ino

    def remap(self) -> None:
        """Map the file again after the layout and the file have grown. Blocks in use stay in the same memory."""
        if self.descriptor is not None and len(self.cells) < self.layout.cells:
            self.cells = mapped(self.descriptor, self.layout.size).cast("Q")

    def block(self, key: str) -> memoryview[int]:
        """Return the cells of a key; of one that the layout lacks, cells that only this process sees."""
        start = self.layout.places.get(key, len(self.cells))
        count = len(groups.BLOCKS[key.partition("\n")[0]].names)
        cells = self.cells[start : start + count]
        if len(cells) == count:
            return cells
        if key not in self._own:
            self._own[key] = memoryview(bytearray(count * groups.CELL)).cast("Q")
        return self._own[key]

    def tolist(self) -> list[int]:
        return memoryview(self.image().cells).cast("Q").tolist()

    def image(self) -> Image:
        """Return what is counted now. Where nothing was counted, nothing is read: through the mapping, it would take memory from now on."""
        cells = self.cells[: self.layout.cells]
        if self.descriptor is None or not cells:
            return Image(cells.tobytes(), [range(cells.nbytes)])
        image = Image(mmap(-1, cells.nbytes), [*written(self.descriptor, 0, cells.nbytes)])
        for place in image.written:
            data = os.pread(self.descriptor, len(place), place.start)
            image.cells[place.start : place.start + len(data)] = data  # type: ignore[index]
        return image

    def listener(self, name: str) -> groups.ListenerCounts:
        return groups.ListenerCounts(
            self.block(groups.LISTENER.key(name)), self.route(name, groups.NO_ROUTE)
        )

    def route(self, listener: str, name: str) -> groups.RouteCounts:
        return groups.RouteCounts(self.block(groups.ROUTE.key(listener, name)))

    def backend(self, name: str) -> groups.BackendCounts:
        return groups.BackendCounts(self.block(groups.BACKEND.key(name)))

    def server(self, backend: str, text: str) -> groups.ServerCounts:
        return groups.ServerCounts(self.block(groups.SERVER.key(backend, text)))
