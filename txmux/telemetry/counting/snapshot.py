"""The numbers of all processes at one moment, under the names that the rules have now."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.backend import backends_of
from txmux.telemetry.counting.counter_groups import (
    BACKEND,
    CONNECT,
    DETECT,
    DETECT_BYTES,
    DURATION,
    LISTENER,
    PROCESS,
    ROUTE,
    SERVER,
)
from txmux.telemetry.counting.live import live, live_on_route, live_on_server, undecided
from txmux.telemetry.counting.present import Present
from txmux.telemetry.counting.process_counters import NO_ROUTE, routes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from txmux.rules.model import Rules
    from txmux.telemetry.counting.counter_groups import Buckets, CounterGroup
    from txmux.telemetry.counting.counters import Counters, Reading

__all__ = ["Counts", "ListenerTotals", "Observed", "RouteTotals", "ServerTotals", "counts_of"]


_MATCHES, _DRY, _LAST, _IN, _OUT = (
    ROUTE.at[name] for name in ("matches", "dry run matches", "last match", "bytes in", "bytes out")
)


@attrs.frozen
class Observed:
    """A histogram.

    Attributes:
        buckets: For each bucket but the last, its highest value and the number of all that were no higher.
        count: The number of all.
        sum: Their sum, in the unit of the bounds.
    """

    buckets: Sequence[tuple[float, int]]
    count: int
    sum: float


@attrs.frozen
class ListenerTotals:
    """What has come by a listener.

    Attributes:
        name: The listener's.
        total: Clients that have connected.
        active: Open connections.
        undecided: Those of them of which it is not known where they are led.
        bytes_in: Bytes from clients.
        bytes_out: Bytes to clients.
        refused: Clients that were not let in, by the limit that was reached.
        datagrams: Datagrams, by what became of them: ``in``, ``out``, ``lost`` and ``cut``.
        detect: Seconds from accept to the decision.
        duration: Seconds from accept to the end.
    """

    name: str
    total: int
    active: int
    undecided: int
    bytes_in: int
    bytes_out: int
    refused: Mapping[str, int]
    datagrams: Mapping[str, int]
    detect: Observed
    duration: Observed


@attrs.frozen
class RouteTotals:
    """What a route has taken of a listener's clients. There may be very many, so that nothing is worked out before it is asked for.

    Attributes:
        listener: The listener's name.
        route: The route's; empty for those that no route has taken.
        last_match: When the last client that it has taken had come, in seconds since 1970; ``None`` if there was none.
    """

    listener: str
    route: str
    last_match: float | None
    _cells: Sequence[int] = attrs.field(repr=False)

    @property
    def matches(self) -> int:
        return self._cells[_MATCHES]

    @property
    def dry_run_matches(self) -> int:
        return self._cells[_DRY]

    @property
    def active(self) -> int:
        """Connections that there are; not told of those that no route has taken."""
        return live_on_route(self._cells)

    @property
    def bytes_in(self) -> int:
        return self._cells[_IN]

    @property
    def bytes_out(self) -> int:
        return self._cells[_OUT]

    @property
    def ended(self) -> Mapping[str, int]:
        """Connections that have ended, by the reason."""
        return _named(ROUTE, "ended", self._cells)


@attrs.frozen
class ServerTotals:
    """What was led to a server.

    Attributes:
        backend: The backend's name.
        server: The server, as the rules name it.
        total: Connections that were established.
        active: Those of them that there are.
        failed: Connections that could not be established, by the cause.
        check_seconds: How long the last check has taken; ``None`` if there was none.
    """

    backend: str
    server: str
    total: int
    active: int
    failed: Mapping[str, int]
    check_seconds: float | None


@attrs.frozen
class Counts:
    """All numbers.

    Attributes:
        listeners: In the order of the rules.
        routes: In the order of the rules, listener by listener; after the routes of each, those that none has taken.
        detect_bytes: Bytes that clients had sent when they were decided.
        connect: Seconds from the decision until a server had accepted, by backend.
        servers: In the order of the rules.
        spliced: Bytes that the kernel has moved by itself.
        restarts: Workers that were restarted.
        present: What is not counted.
        rules: The SHA-256 of the rules that hold; empty if they are from no file.
        reloaded: Whether the rules could be read when they were last asked to be; when that was, in seconds since 1970.
    """

    listeners: Sequence[ListenerTotals]
    routes: Sequence[RouteTotals]
    detect_bytes: Observed
    connect: Mapping[str, Observed]
    servers: Sequence[ServerTotals]
    spliced: int
    restarts: int
    present: Present = attrs.field(factory=Present)
    rules: str = ""
    reloaded: tuple[bool, float] = (True, 0.0)


def counts_of(counters: Counters, rules: Rules) -> Counts:
    """Read all numbers.

    Args:
        counters: Those of all processes.
        rules: Name what is told of.
    """
    pairs = [
        (listener.name, name)
        for listener in rules.listeners
        for name in (*(route.name for route in routes_of(rules, listener)), NO_ROUTE)
    ]
    backends = {
        backend.name: backend
        for backend in backends_of([*rules.backends.values(), *rules.outcomes()])
    }
    servers = [(name, server.text) for name, one in backends.items() for server in one.servers]
    reading = counters.read()
    process = reading.cells(PROCESS.key())
    return Counts(
        [_listener(reading, listener.name) for listener in rules.listeners],
        [_route(reading, *pair) for pair in pairs],
        _observed(LISTENER, DETECT_BYTES, _sum(reading, rules)),
        {name: _observed(BACKEND, CONNECT, reading.cells(BACKEND.key(name))) for name in backends},
        [_server(reading, *pair) for pair in dict.fromkeys(servers)],
        process[PROCESS.at["spliced"]],
        process[PROCESS.at["restarts"]],
    )


def _listener(reading: Reading, name: str) -> ListenerTotals:
    cells = reading.cells(LISTENER.key(name))
    return ListenerTotals(
        name,
        cells[LISTENER.at["accepted"]],
        live(cells),
        undecided(cells),
        cells[LISTENER.at["bytes in"]],
        cells[LISTENER.at["bytes out"]],
        _named(LISTENER, "refused", cells),
        _named(LISTENER, "datagrams", cells),
        _observed(LISTENER, DETECT, cells),
        _observed(LISTENER, DURATION, cells),
    )


def _sum(reading: Reading, rules: Rules) -> Sequence[int]:
    """Add up all listeners."""
    cells = [reading.cells(LISTENER.key(listener.name)) for listener in rules.listeners]
    return [sum(same) for same in zip(*cells, strict=True)] or [0] * len(LISTENER.names)


def _route(reading: Reading, listener: str, name: str) -> RouteTotals:
    key = ROUTE.key(listener, name)
    last = reading.latest(key, _LAST)
    return RouteTotals(listener, name, last / 1000 if last else None, reading.cells(key))


def _server(reading: Reading, backend: str, text: str) -> ServerTotals:
    key = SERVER.key(backend, text)
    cells, check_time = reading.cells(key), reading.latest(key, SERVER.at["check time"])
    return ServerTotals(
        backend,
        text,
        cells[SERVER.at["connected"]],
        live_on_server(cells),
        _named(SERVER, "failed", cells),
        check_time / 1_000_000 if check_time else None,
    )


def _named(block: CounterGroup, prefix: str, cells: Sequence[int]) -> Mapping[str, int]:
    return {name: cells[at] for name, at in block.those(prefix).items()}


def _observed(block: CounterGroup, buckets: Buckets, cells: Sequence[int]) -> Observed:
    start = block.histogram(buckets)
    counted = cells[start + 1 : start + 2 + len(buckets.bounds)]
    *below, count = itertools.accumulate(counted)
    bounds = [bound / buckets.base for bound in buckets.bounds]
    return Observed(
        list(zip(bounds, below, strict=True)),
        count,
        cells[start] / (buckets.parts * buckets.base),
    )


def totals(counters: Counters, listeners: Iterable[str]) -> tuple[int, int, int, int]:
    """Add up listeners: clients that have come, connections that there are, bytes from clients and to them."""
    found = [counters.cells(LISTENER.key(name)) for name in listeners]
    accepted, bytes_in, bytes_out = (
        sum(cells[LISTENER.at[name]] for cells in found)
        for name in ("accepted", "bytes in", "bytes out")
    )
    return accepted, sum(map(live, found)), bytes_in, bytes_out
