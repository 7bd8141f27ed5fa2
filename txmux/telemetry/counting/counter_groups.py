"""What is counted of a listener, route, backend, server or process: the rows of their cells, and the objects that add to these.

Cells only grow. What exists now, such as live connections, is the difference of cells, so none is ever decremented, and the numbers
stay right when a process is killed.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import get_args

from txmux.telemetry.counting.counter_rows import (
    Cell,
    Cells,
    Computed,
    Counter,
    CounterByWord,
    Histogram,
    Name,
    Totals,
    newest,
)
from txmux.telemetry.reasons import CountedReason, EndReason, LimitName, ServerFailure
from txmux.telemetry.record import ConnectionRecord

CELL = 8  # bytes of a cell
NO_ROUTE = ""  # the name that stands for connections without a route

_MILLISECONDS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
_LONG = (100, 500, 1000, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 14_400_000, 43_200_000, 86_400_000)  # fmt: skip
_CAUSES: tuple[ServerFailure, ...] = get_args(ServerFailure)
SERVER_CAUSES: tuple[ServerFailure, ...] = (
    "connect-refused", "connect-timeout", "tls-failed", "error", "reset",
)  # fmt: skip
"""Causes that concern one server; others concern the backend."""
_WAYS = ("in", "out")


def live(listener: Cells) -> int:
    # Ended connections are read first: other processes count meanwhile, and the result must not be negative.
    gone = sum(listener[_OVER]) + listener[_GONE]
    return max(0, listener[_ACCEPTED] + listener[_ADOPTED] - gone)


def without_decision(listener: Cells) -> int:
    finished = sum(listener[_DECIDED]) + listener[_UNDECIDED_GONE]
    return max(0, listener[_ACCEPTED] - finished)


def live_on_route(route: Cells) -> int:
    """Return a route's live connections, 0 for those without one; one that went on to an inner route is that one's."""
    gone = sum(route[_ENDINGS]) + route[_LEFT]
    return max(0, route[_MATCHES] + route[_ROUTE_ADOPTED] - gone)


def held(backend: Cells) -> int:
    """Return how many clients of a backend wait for a server."""
    released = backend[_NO_LONGER_HELD]
    return max(0, backend[_HELD] - released)


def live_on_server(server: Cells) -> int:
    return max(0, server[_CONNECTED] + server[_SERVER_ADOPTED] - server[_RELEASED])


def last_failure_of(cell: int) -> tuple[float, ServerFailure] | None:
    """Return when a server failed last, in seconds since 1970, and how."""
    when, cause = divmod(cell, len(_CAUSES))
    return (when / 1000, _CAUSES[cause]) if cell else None


# fmt: off
class ListenerTotals(Totals, kind="listener"):
    """The numbers of a listener."""

    listener = Name()
    total = Counter("connections_total", "Clients that have connected.", "Refused ones count, too.", cell="accepted")
    adopted = Counter()
    gone = Counter()
    """They left without an end: moved to another process, or lost with their own."""
    undecided_gone = Counter()
    """They ended before a decision."""
    traffic = CounterByWord(_WAYS, cell="bytes")
    bytes_in, bytes_out = traffic.word("in"), traffic.word("out")
    datagrams = CounterByWord(
        (*_WAYS, "lost", "cut"), "datagrams_total",
        "Datagrams that came from clients (in), went to them (out), were dropped (lost), or were longer than can be taken (cut).",
        "Lost: a full queue, too many new flows at once, no receiver, or a QUIC server must not get them. Absent before the first one.",
        label="way", chosen=lambda by_word: by_word if any(by_word.values()) else ())
    refused = CounterByWord(
        get_args(LimitName), "limit_refused_total", "Clients that were not let in, by the limit.",
        "The listener's key; `txmux.max_connections` is that of `[txmux]`; `handshakes` and `descriptors` are those of the process.", label="limit")
    detect = Histogram(_MILLISECONDS, "detect_seconds", "Time from accept to the decision.", "Buckets are from 1 ms to 10 s.", base=1000)
    detect_bytes = Histogram(
        tuple(2**power for power in range(16)), "detect_bytes", "Bytes that clients had sent when they were decided.", "Buckets are from 1 to 32 Ki.", cell="bytes", is_of_all=True)
    duration = Histogram(_LONG, "duration_seconds", "Time from accept to the end.", "Buckets are from 0.1 s to a day.", base=1000)
    active = Computed(live, "connections_active", "Open connections.")
    undecided = Computed(without_decision, "connections_undecided", "Connections that are not decided yet.")


class RouteTotals(Totals, kind="route"):
    """The numbers of a route, or of no route, for one listener; the last match is in seconds since 1970."""

    listener = Name()
    route = Name()
    matches = Counter("route_matches_total", "Clients that a route has taken.", shown=lambda its: its.route != NO_ROUTE)
    dry_run_matches = Counter()
    last_match = Cell(lambda cell: cell / 1000 if cell else None, combine=max)
    adopted = Counter()
    left = Counter()
    """They left for another route, or another process."""
    traffic = CounterByWord(
        _WAYS, "bytes_total", "Bytes from clients (in) and to them (out), those of live connections with them.", label="direction", cell="bytes")
    bytes_in, bytes_out = traffic.word("in"), traffic.word("out")
    ended = CounterByWord(
        get_args(CountedReason), "connections_ended_total",
        "Connections that have ended, by the reason of the access log, or crashed for those of a worker that was killed.",
        "The latter have no line in the log; see [reasons](access-log.md#reasons). `route` is empty where none has taken the client.",
        label="reason", chosen=lambda by_reason: [reason for reason, count in by_reason.items() if count or reason == "done"])
    active = Computed(live_on_route)


class BackendTotals(Totals, kind="backend"):
    """The numbers of a backend."""

    backend = Name()
    held = Counter()
    released = Counter()
    connect = Histogram(_MILLISECONDS, "connect_seconds", "Time from the decision until a server had accepted.", "Buckets are from 1 ms to 10 s.", base=1000)
    first_byte = Histogram(
        _MILLISECONDS, "first_byte_seconds", "Time from the first byte to a server, or its connect if it speaks first, until its first byte.",
        "Over UDP, of datagrams. Buckets are from 1 ms to 10 s.", base=1000)


class ServerTotals(Totals, kind="server"):
    """The numbers of a server."""

    backend = Name()
    server = Name()
    total = Counter(
        "backend_connections_total", "Connections to a server.",
        "Named as in the rules, also with several addresses. Flows of UDP count once it has answered.", cell="connected")
    adopted = Counter()
    released = Counter()
    check_seconds = Cell(
        lambda cell: cell / 1_000_000 if cell else None, "backend_check_seconds", "How long the last check of a server took.",
        "Only with [`check`](rules.md#backend-name).", cell="check time", combine=newest)
    checks_failed = Counter("backend_checks_failed_total", "Checks of a server that failed.", "Only with `check`.", shown=lambda its: its.check_seconds is not None)
    checks_recovered = Counter(
        "backend_checks_recovered_total", "How often a check of a server succeeded after others that had failed, but had not taken it down.",
        "Fewer than `fall`.", shown=lambda its: its.check_seconds is not None)
    asked = Counter()
    """Connections on which it could have answered, or has spoken first."""
    answered = Counter()
    """Connections with a byte from it."""
    unanswered = Counter()
    """Those of `asked` that ended without one, other than by its reset."""
    closed = Counter()
    """Those of `asked` that it has closed before the client did, without a byte."""
    bad_requests = Counter()
    """Those of `answered` that begin with HTTP's status 400, though the client's request came behind a PROXY header."""
    answer_time = Counter()
    """How long all of `answered` together waited for the first bytes, in microseconds."""
    last_failure = Cell(last_failure_of, combine=max)
    """When, in seconds since 1970, and the cause."""
    traffic = CounterByWord(
        _WAYS, "backend_bytes_total", "Bytes of clients to a server (in) and from it (out).", "Those of open connections count, too.", label="direction", cell="bytes")
    bytes_in, bytes_out = traffic.word("in"), traffic.word("out")
    local_faults = Counter()
    """Of the failed: causes on this machine."""
    waiting = CounterByWord("012", combine=newest)
    """The last sources of clients that it owed a byte: see `sources_in`."""
    reset = CounterByWord("012", combine=newest)
    """The same of those that it has reset before its first byte, or whose TLS failed."""
    failed = CounterByWord(
        _CAUSES, "backend_connect_failures_total", "Connections to a server that could not be established, or that it reset before its first byte, by the cause.",
        "Each attempt counts.", label="cause", chosen=lambda _: SERVER_CAUSES)
    active = Computed(live_on_server, "backend_connections_active", "Open connections to a server.")


class ProcessTotals(Totals, kind="process"):
    """The numbers of processes."""

    spliced = Counter("relay_spliced_bytes_total", "Bytes that the kernel has moved by itself.")
    restarts = Counter("worker_restarts_total", "Workers that were restarted.", "They had crashed, or had been killed.")
    lost_lines = Counter("access_log_lost_total", "Lines that a log could not write.", "That of the access log's file, or the service's: the disk is full, or a reader is too slow.")
    turns = Counter()
    """No longer counted; without its cell, `FORMAT` would differ from that of earlier processes, whose connections would not be counted."""
# fmt: on


TOTALS = (ListenerTotals, RouteTotals, BackendTotals, ServerTotals, ProcessTotals)
LISTENER, ROUTE, BACKEND, SERVER, PROCESS = TOTALS
BLOCKS: Mapping[str, type[Totals]] = {totals.kind: totals for totals in TOTALS}
FORMAT = hashlib.blake2b(
    repr([(totals.kind, totals.names) for totals in TOTALS]).encode(), digest_size=8
).hexdigest()
"""The same in all versions with the same cells in the same order."""


# Positions of cells: looking them up would cost more than counting.
# fmt: off
_ACCEPTED, _ADOPTED, _GONE, _UNDECIDED_GONE = LISTENER.total.at, LISTENER.adopted.at, LISTENER.gone.at, LISTENER.undecided_gone.at
_IN, _OUT = ListenerTotals.traffic.positions.values()
_DATAGRAMS_IN, _DATAGRAMS_OUT, _LOST, _CUT = ListenerTotals.datagrams.positions.values()
_REFUSED = ListenerTotals.refused.positions
_DETECT, _DECIDED = ListenerTotals.detect.at, ListenerTotals.detect.counts
_BYTES = ListenerTotals.detect_bytes.at
_DURATION, _OVER = ListenerTotals.duration.at, ListenerTotals.duration.counts

_MATCHES, _DRY, _LAST, _ROUTE_ADOPTED, _LEFT = ROUTE.matches.at, ROUTE.dry_run_matches.at, ROUTE.last_match.at, ROUTE.adopted.at, ROUTE.left.at
_ROUTE_IN, _ROUTE_OUT = RouteTotals.traffic.positions.values()
_ENDED, _ENDINGS = RouteTotals.ended.positions, RouteTotals.ended.span

_HELD, _NO_LONGER_HELD = BACKEND.held.at, BACKEND.released.at
_CONNECT, _FIRST_BYTE = BackendTotals.connect.at, BackendTotals.first_byte.at

_CONNECTED, _SERVER_ADOPTED, _RELEASED = SERVER.total.at, SERVER.adopted.at, SERVER.released.at
_CHECK_TIME, _CHECKS_FAILED, _CHECKS_RECOVERED = SERVER.check_seconds.at, SERVER.checks_failed.at, SERVER.checks_recovered.at
_ASKED, _ANSWERED, _UNANSWERED, _ANSWER_TIME = SERVER.asked.at, SERVER.answered.at, SERVER.unanswered.at, SERVER.answer_time.at
_CLOSED, _BAD_REQUESTS = SERVER.closed.at, SERVER.bad_requests.at
_SERVER_IN, _SERVER_OUT = ServerTotals.traffic.positions.values()
_LOCAL, _LAST_FAILURE = SERVER.local_faults.at, SERVER.last_failure.at
_FAILED = ServerTotals.failed.positions
WAITING, RESET = ServerTotals.waiting.span, ServerTotals.reset.span

_SPLICED, _RESTARTS, _LOST_LINES = PROCESS.spliced.at, PROCESS.restarts.at, PROCESS.lost_lines.at

# Local names, for speed.
_DETECT_BOUNDS, _BYTES_BOUNDS = ListenerTotals.detect.bounds, ListenerTotals.detect_bytes.bounds
_DURATION_BOUNDS, _CONNECT_BOUNDS = ListenerTotals.duration.bounds, BackendTotals.connect.bounds
_FIRST_BYTE_BOUNDS = BackendTotals.first_byte.bounds
# fmt: on


_NUMBER = 16  # bits of a cell that tell when a source came: each time they are one more


def sources_in(before: Cells, now: Cells) -> set[int]:
    return {cell >> _NUMBER for cell in {*now} - {*before}}


class _CountedCells:
    __slots__ = ("cells",)

    def __init__(self, cells: memoryview[int]) -> None:
        self.cells = cells


def _counting(at: int) -> Callable[[_CountedCells], None]:
    """Return a method that counts one more in a cell."""

    def count(counts: _CountedCells) -> None:
        counts.cells[at] += 1

    return count


class RouteCounts(_CountedCells):
    """Counts the connections of a listener that a route has taken, or that none has."""

    __slots__ = ()

    def matched(self, record: ConnectionRecord) -> None:
        cells = self.cells
        cells[_MATCHES] += 1
        cells[_LAST] = int(record.time * 1000)

    would_have_matched = _counting(_DRY)
    left = _counting(_LEFT)
    """The connection went on to an inner route, or to another process."""


class ListenerCounts(_CountedCells):
    """Counts the connections of a listener."""

    __slots__ = ("unrouted",)

    def __init__(self, cells: memoryview[int], unrouted: RouteCounts) -> None:
        super().__init__(cells)
        self.unrouted = unrouted

    accepted = _counting(_ACCEPTED)

    def refused(self, limit: LimitName) -> None:
        self.cells[_REFUSED[limit]] += 1

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

    held = _counting(_HELD)
    """A client begins to wait for a server."""

    released = _counting(_NO_LONGER_HELD)


class ServerCounts(_CountedCells):
    """Counts the connections to a server, whatever its addresses."""

    __slots__ = ()

    connected = _counting(_CONNECTED)
    adopted = _counting(_SERVER_ADOPTED)
    released = _counting(_RELEASED)

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
        # One number for time and cause, so that the highest one of several processes is the last failure.
        moment = int(time.time() * 1000)
        self.cells[_LAST_FAILURE] = moment * len(_CAUSES) + _CAUSES.index(cause)
        if source is not None:
            self._note(source, RESET)

    def asked(self, source: int) -> None:
        """It could answer a client, or has spoken first; see `source_number`."""
        self.cells[_ASKED] += 1
        self._note(source, WAITING)

    def _note(self, source: int, where: slice) -> None:
        """Put a source first among the last ones."""
        cells = self.cells
        moved = source << _NUMBER | (cells[where.start] + 1) % (1 << _NUMBER)
        for at in range(where.start, where.stop):
            moved, cells[at] = cells[at], moved
            if moved >> _NUMBER == source:
                break

    def answered(self, backend: BackendCounts, milliseconds: float) -> None:
        """It has sent the first byte of a connection, so long after it had been asked."""
        mine, cells = self.cells, backend.cells
        mine[_ANSWERED] += 1
        cells[_FIRST_BYTE + 1 + bisect_left(_FIRST_BYTE_BOUNDS, milliseconds)] += 1
        if milliseconds > 0.0:
            waited = int(milliseconds * 1000)
            mine[_ANSWER_TIME] += waited
            cells[_FIRST_BYTE] += waited

    unanswered = _counting(_UNANSWERED)
    """A connection on which it was asked has ended without a byte from it, and not by its reset."""

    closed = _counting(_CLOSED)
    """It has closed a connection on which it was asked, before the client did, without a byte."""

    def answered_header(self, data: bytes | memoryview) -> None:
        """Its first bytes behind a PROXY header are these: HTTP's status 400, if it takes the header for a request."""
        self.cells[_BAD_REQUESTS] += data[:5] == b"HTTP/" and data[8:12] == b" 400"

    def relayed(self, bytes_in: int, bytes_out: int) -> None:
        self.cells[_SERVER_IN] += bytes_in
        self.cells[_SERVER_OUT] += bytes_out

    recovered = _counting(_CHECKS_RECOVERED)
    """A check has succeeded after others that had failed, but had not taken it down."""

    def checked(self, seconds: float, *, ok: bool = True) -> None:
        self.cells[_CHECKS_FAILED] += not ok
        self.cells[_CHECK_TIME] = max(1, int(seconds * 1_000_000))


class ProcessCounts(_CountedCells):
    """Counts for a process."""

    __slots__ = ()

    def spliced(self, count: int) -> None:
        self.cells[_SPLICED] += count

    restarted = _counting(_RESTARTS)

    def lost_lines(self, count: int) -> None:
        self.cells[_LOST_LINES] += count


def settle(blocks: dict[str, list[int]], *, has_crashed: bool = True) -> int:
    """Count all connections in the blocks of a process as ended, or as moved away, and return their number."""
    unrouted: dict[str, int] = {}
    lost = 0
    for key, cells in blocks.items():
        kind, *names = key.split("\n")
        if kind == LISTENER.kind:
            count = live(cells)
            lost += count
            unrouted[names[0]] = unrouted.get(names[0], 0) + count
            cells[_UNDECIDED_GONE] += without_decision(cells)
            cells[_GONE] += count
        elif kind == ROUTE.kind and names[1] != NO_ROUTE:
            count = live_on_route(cells)
            unrouted[names[0]] = unrouted.get(names[0], 0) - count
            cells[_ENDED["crashed"] if has_crashed else _LEFT] += count
        elif kind == SERVER.kind:
            cells[_RELEASED] += live_on_server(cells)
        elif kind == BACKEND.kind:
            cells[_NO_LONGER_HELD] = cells[_HELD]
    for listener, count in unrouted.items() if has_crashed else ():
        if count > 0:
            nothing = [0] * len(ROUTE.names)
            blocks.setdefault(ROUTE.key(listener, NO_ROUTE), nothing)[_ENDED["crashed"]] += count
    return lost
