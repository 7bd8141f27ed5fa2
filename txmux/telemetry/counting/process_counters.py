"""The counters of one process, and the objects that add to them; looked up once, when rules are compiled."""

from __future__ import annotations

import os
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import filterfalse

import attrs
from attrs.validators import deep_mapping, ge, instance_of

from txmux.rules.model import Listener, Route, Rules
from txmux.telemetry.counting.counter_groups import (
    BACKEND,
    BLOCKS,
    CELL,
    CONNECT,
    DETECT,
    DETECT_BYTES,
    DURATION,
    FIRST_BYTE,
    LISTENER,
    PROCESS,
    RESET,
    ROUTE,
    SERVER,
    WAITING,
    failure_cell,
    with_source,
)
from txmux.telemetry.reasons import EndReason, LimitName, ServerFailure
from txmux.telemetry.record import ConnectionRecord
from txmux.telemetry.sharedmemory import mapped

# Positions of cells: looking them up would cost more than counting.
_ACCEPTED = LISTENER.at["accepted"]
_ADOPTED = LISTENER.at["adopted"]
_GONE = LISTENER.at["gone"]
_UNDECIDED_GONE = LISTENER.at["undecided gone"]
_IN = LISTENER.at["bytes in"]
_OUT = LISTENER.at["bytes out"]
_DATAGRAMS_IN = LISTENER.at["datagrams in"]
_DATAGRAMS_OUT = LISTENER.at["datagrams out"]
_LOST = LISTENER.at["datagrams lost"]
_CUT = LISTENER.at["datagrams cut"]
_REFUSED = LISTENER.those("refused")
_ECH = LISTENER.those("ech")
_DETECT = LISTENER.histogram(DETECT)
_BYTES = LISTENER.histogram(DETECT_BYTES)
_DURATION = LISTENER.histogram(DURATION)

_MATCHES = ROUTE.at["matches"]
_DRY = ROUTE.at["dry run matches"]
_LAST = ROUTE.at["last match"]
_ROUTE_ADOPTED = ROUTE.at["adopted"]
_LEFT = ROUTE.at["left"]
_ROUTE_IN = ROUTE.at["bytes in"]
_ROUTE_OUT = ROUTE.at["bytes out"]
_ENDED = ROUTE.those("ended")

_HELD, _NO_LONGER_HELD = BACKEND.at["held"], BACKEND.at["released"]
_CONNECT, _FIRST_BYTE = BACKEND.histogram(CONNECT), BACKEND.histogram(FIRST_BYTE)

_CONNECTED = SERVER.at["connected"]
_SERVER_ADOPTED = SERVER.at["adopted"]
_RELEASED = SERVER.at["released"]
_CHECK_TIME = SERVER.at["check time"]
_CHECKS_FAILED, _CHECKS_RECOVERED = SERVER.at["checks failed"], SERVER.at["checks recovered"]
_ASKED, _ANSWERED, _UNANSWERED, _ANSWER_TIME = (
    SERVER.at[name] for name in ("asked", "answered", "unanswered", "answer time")
)
_LOCAL = SERVER.at["local faults"]
_SERVER_IN, _SERVER_OUT = SERVER.at["bytes in"], SERVER.at["bytes out"]
_FAILED, _LAST_FAILURE = SERVER.those("failed"), SERVER.at["last failure"]

_SPLICED, _RESTARTS, _LOST_LINES, _TURNS = (
    PROCESS.at[name] for name in ("spliced", "restarts", "lost lines", "turns")
)

# Local names, for speed.
_DETECT_BOUNDS, _BYTES_BOUNDS = DETECT.bounds, DETECT_BYTES.bounds
_DURATION_BOUNDS, _CONNECT_BOUNDS = DURATION.bounds, CONNECT.bounds
_FIRST_BYTE_BOUNDS = FIRST_BYTE.bounds


class _CountedCells:
    __slots__ = ("cells",)

    def __init__(self, cells: memoryview[int]) -> None:
        self.cells = cells


class RouteCounts(_CountedCells):
    """Counts the connections of a listener that a route has taken, or that none has."""

    __slots__ = ()

    def matched(self, record: ConnectionRecord) -> None:
        cells = self.cells
        cells[_MATCHES] += 1
        cells[_LAST] = int(record.time * 1000)

    def would_have_matched(self) -> None:
        self.cells[_DRY] += 1

    def left(self) -> None:
        """The connection went on to an inner route, or to another process."""
        self.cells[_LEFT] += 1


class ListenerCounts(_CountedCells):
    """Counts the connections of a listener."""

    __slots__ = ("unrouted",)

    def __init__(self, cells: memoryview[int], unrouted: RouteCounts) -> None:
        super().__init__(cells)
        self.unrouted = unrouted

    def accepted(self) -> None:
        self.cells[_ACCEPTED] += 1

    def refused(self, limit: LimitName) -> None:
        self.cells[_REFUSED[limit]] += 1

    def hidden_hello(self, *, opened: bool) -> None:
        self.cells[_ECH["opened" if opened else "unopened"]] += 1

    def decided(self, record: ConnectionRecord) -> None:
        cells = self.cells
        milliseconds, said = record.detect_ms or 0.0, record.bytes_in
        cells[_DETECT + 1 + bisect_left(_DETECT_BOUNDS, milliseconds)] += 1
        if milliseconds > 0.0:  # a clock may be set back
            cells[_DETECT] += int(milliseconds * 1000)
        cells[_BYTES + 1 + bisect_left(_BYTES_BOUNDS, said)] += 1
        cells[_BYTES] += said

    def relayed(
        self,
        route: RouteCounts,
        server: ServerCounts | None,
        bytes_in: int,
        bytes_out: int,
        came: int = 0,
        went: int = 0,
    ) -> None:
        """Count bytes, and for a flow the datagrams of both sides."""
        if bytes_in > 0:
            self.cells[_IN] += bytes_in
            route.cells[_ROUTE_IN] += bytes_in
            if server is not None:
                server.cells[_SERVER_IN] += bytes_in
        if bytes_out > 0:
            self.cells[_OUT] += bytes_out
            route.cells[_ROUTE_OUT] += bytes_out
            if server is not None:
                server.cells[_SERVER_OUT] += bytes_out
        if came or went:
            self.cells[_DATAGRAMS_IN] += came
            self.cells[_DATAGRAMS_OUT] += went

    def lost(self, count: int) -> None:
        self.cells[_LOST] += count

    def cut(self, count: int) -> None:
        """Datagrams were dropped because they are longer than the buffer."""
        self.cells[_CUT] += count

    def connection_ended(
        self, route: RouteCounts, record: ConnectionRecord, reason: EndReason
    ) -> None:
        """Count a connection that has ended; `relayed` counts its bytes."""
        cells = self.cells
        milliseconds = record.duration_ms or 0.0
        cells[_DURATION + 1 + bisect_left(_DURATION_BOUNDS, milliseconds)] += 1
        if milliseconds > 0.0:
            cells[_DURATION] += int(milliseconds * 1000)
        if record.detect_ms is None:
            cells[_UNDECIDED_GONE] += 1
        route.cells[_ENDED[reason]] += 1

    def moved_away(self, route: RouteCounts) -> None:
        self.cells[_GONE] += 1
        route.left()

    def adopted(self, route: RouteCounts) -> None:
        self.cells[_ADOPTED] += 1
        route.cells[_ROUTE_ADOPTED] += 1


class BackendCounts(_CountedCells):
    """Counts for a backend."""

    __slots__ = ()

    def connected(self, milliseconds: float) -> None:
        cells = self.cells
        cells[_CONNECT + 1 + bisect_left(_CONNECT_BOUNDS, milliseconds)] += 1
        if milliseconds > 0.0:
            cells[_CONNECT] += int(milliseconds * 1000)

    def held(self) -> None:
        """A client begins to wait for a server."""
        self.cells[_HELD] += 1

    def released(self) -> None:
        self.cells[_NO_LONGER_HELD] += 1


class ServerCounts(_CountedCells):
    """Counts the connections to a server, whatever its addresses."""

    __slots__ = ()

    def connected(self) -> None:
        self.cells[_CONNECTED] += 1

    def adopted(self) -> None:
        self.cells[_SERVER_ADOPTED] += 1

    def released(self) -> None:
        self.cells[_RELEASED] += 1

    def failed(
        self, cause: ServerFailure, *, is_local: bool = False, source: int | None = None
    ) -> None:
        """Count a failed connection.

        Args:
            cause: How it failed.
            is_local: Whether the fault is this machine's, and says nothing about the server.
            source: Of the client, if what that one sends may be the reason; see `source_number`.
        """
        self.cells[_FAILED[cause]] += 1
        self.cells[_LOCAL] += is_local
        self.cells[_LAST_FAILURE] = failure_cell(time.time(), cause)
        if source is not None:
            self._note(source, RESET)

    def asked(self, source: int) -> None:
        """It could answer a client, or has spoken first; see `source_number`."""
        self.cells[_ASKED] += 1
        self._note(source, WAITING)

    def _note(self, source: int, where: slice) -> None:
        for at, cell in enumerate(with_source(self.cells[where], source), where.start):
            self.cells[at] = cell

    def answered(self, backend: BackendCounts, milliseconds: float) -> None:
        """It has sent the first byte of a connection, so long after it had been asked."""
        mine, cells = self.cells, backend.cells
        mine[_ANSWERED] += 1
        cells[_FIRST_BYTE + 1 + bisect_left(_FIRST_BYTE_BOUNDS, milliseconds)] += 1
        if milliseconds > 0.0:
            waited = int(milliseconds * 1000)
            mine[_ANSWER_TIME] += waited
            cells[_FIRST_BYTE] += waited

    def unanswered(self) -> None:
        """A connection on which it was asked has ended without a byte from it, and not by its reset."""
        self.cells[_UNANSWERED] += 1

    def relayed(self, bytes_in: int, bytes_out: int) -> None:
        if bytes_in > 0:
            self.cells[_SERVER_IN] += bytes_in
        if bytes_out > 0:
            self.cells[_SERVER_OUT] += bytes_out

    def recovered(self) -> None:
        """A check has succeeded after others that had failed, but had not taken it down."""
        self.cells[_CHECKS_RECOVERED] += 1

    def checked(self, seconds: float, *, ok: bool = True) -> None:
        self.cells[_CHECKS_FAILED] += not ok
        self.cells[_CHECK_TIME] = max(1, int(seconds * 1_000_000))


class ProcessCounts(_CountedCells):
    """Counts for a process."""

    __slots__ = ()

    def spliced(self, count: int) -> None:
        self.cells[_SPLICED] += count

    def restarted(self) -> None:
        self.cells[_RESTARTS] += 1

    def lost_lines(self, count: int) -> None:
        self.cells[_LOST_LINES] += count

    def turned(self) -> None:
        """The process's loop has turned; see `turns`."""
        self.cells[_TURNS] += 1

    @property
    def turns(self) -> int:
        """A number that grows once a second while the loop turns, so that it needs no answer from a busy process."""
        return self.cells[_TURNS]


NO_ROUTE = ""  # the name that stands for connections without a route

_STEP = 1 << 16  # bytes by which memory grows; pages that are not written to take none


def routes_of(rules: Rules, listener: Listener) -> Iterator[Route]:
    """Yield the routes that may take a listener's clients, those inside of TLS and tunnels included, each once."""
    seen: set[str] = set()
    levels: list[Listener | Route] = [listener]
    for level in levels:
        for route in rules.routes_of(level):
            if route.name not in seen:
                seen.add(route.name)
                yield route
                if route.is_outer:
                    levels.append(route)


def keys_of(rules: Rules) -> Iterator[str]:
    for listener in rules.listeners:
        yield LISTENER.key(listener.name)
        yield ROUTE.key(listener.name, NO_ROUTE)
        for route in routes_of(rules, listener):
            yield ROUTE.key(listener.name, route.name)
    for backend in rules.every_backend():
        yield BACKEND.key(backend.name)
        for server in backend.servers:
            yield SERVER.key(backend.name, server.text)


@attrs.define
class CounterLayout:
    """Where each block is. A block keeps its position while a process may count there."""

    places: dict[str, int] = attrs.field(
        factory=dict, validator=deep_mapping(instance_of(str), instance_of(int), instance_of(dict))
    )
    cells: int = attrs.field(default=0, validator=(instance_of(int), ge(0)))

    def extend(self, keys: Iterable[str], spare: Mapping[str, list[int]] | None = None) -> None:
        """Add blocks for new keys; those of `spare`, by their kind, are used again and removed from it."""
        for key in keys:
            if key not in self.places:
                kind = key.partition("\n")[0]
                if spare and spare.get(kind):
                    self.places[key] = spare[kind].pop()
                else:
                    self.places[key] = self.cells
                    self.cells += len(BLOCKS[kind].names)

    def changes(self, known: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        """Return which blocks are new or moved, and which keys were removed, since `known`."""
        new = {key: start for key, start in self.places.items() if known.get(key) != start}
        return new, [*filterfalse(self.places.__contains__, known)]

    @property
    def size(self) -> int:
        return max(1, -(-self.cells * CELL // _STEP)) * _STEP


class ProcessCounters:
    """The counters of one process; only that process adds to them. A file smaller than the layout is an error, and stays open."""

    def __init__(self, layout: CounterLayout | None = None, descriptor: int | None = None) -> None:
        self.layout = layout or CounterLayout()
        self.descriptor = descriptor
        self._own: dict[str, memoryview[int]] = {}
        self._cells = memoryview(b"").cast("Q")
        self.use()
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)
        self.process = ProcessCounts(self.block(PROCESS.key()))

    def use(self) -> None:
        """Map the file again after the layout and the file have grown. Blocks in use stay in the same memory."""
        if self.descriptor is not None and len(self._cells) < self.layout.cells:
            self._cells = mapped(self.descriptor, self.layout.size).cast("Q")

    def block(self, key: str) -> memoryview[int]:
        """Return the cells of a key; of one that the layout lacks, cells that only this process sees."""
        start = self.layout.places.get(key)
        names = BLOCKS[key.partition("\n")[0]].names
        if start is not None and 0 <= start <= len(self._cells) - len(names):
            return self._cells[start : start + len(names)]
        if key not in self._own:
            self._own[key] = memoryview(bytearray(len(names) * CELL)).cast("Q")
        return self._own[key]

    def tolist(self) -> list[int]:
        return memoryview(self.tobytes()).cast("Q").tolist()

    def tobytes(self) -> bytes:
        cells = self._cells[: self.layout.cells]
        if self.descriptor is None:
            return cells.tobytes()
        # Through the mapping, each page that nobody has counted in would take memory from now on.
        return os.pread(self.descriptor, cells.nbytes, 0)

    def listener(self, name: str) -> ListenerCounts:
        return ListenerCounts(self.block(LISTENER.key(name)), self.route(name, NO_ROUTE))

    def route(self, listener: str, name: str) -> RouteCounts:
        return RouteCounts(self.block(ROUTE.key(listener, name)))

    def backend(self, name: str) -> BackendCounts:
        return BackendCounts(self.block(BACKEND.key(name)))

    def server(self, backend: str, text: str) -> ServerCounts:
        return ServerCounts(self.block(SERVER.key(backend, text)))
