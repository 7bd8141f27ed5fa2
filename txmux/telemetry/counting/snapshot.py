"""The numbers of all processes at one moment, under the names that the rules have now."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from txmux.rules.model import Backend, Rules
from txmux.telemetry.attention import OF_FEW, AttentionItem, beside_busiest
from txmux.telemetry.counting.counter_groups import (
    BACKEND,
    CONNECT,
    DETECT,
    DETECT_BYTES,
    DURATION,
    FIRST_BYTE,
    LISTENER,
    PROCESS,
    ROUTE,
    SERVER,
    Buckets,
    CounterGroup,
    last_failure_of,
    live,
    live_on_route,
    live_on_server,
    undecided,
)
from txmux.telemetry.counting.counters import Counters, CountersReading
from txmux.telemetry.counting.process_counters import NO_ROUTE, routes_of
from txmux.telemetry.documents import Unrouted
from txmux.telemetry.formatting import duration
from txmux.telemetry.reasons import ServerFailure
from txmux.telemetry.sources import SourceState

_MATCHES, _DRY, _LAST, _IN, _OUT = (
    ROUTE.at[name] for name in ("matches", "dry run matches", "last match", "bytes in", "bytes out")
)
_CONNECTED, _ANSWERED, _ANSWER_TIME = (
    SERVER.at[name] for name in ("connected", "answered", "answer time")
)
_ENDED, _FAILED = ROUTE.those("ended"), SERVER.those("failed")
_REFUSED, _DATAGRAMS = LISTENER.those("refused"), LISTENER.those("datagrams")
_ECH = LISTENER.those("ech")
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

ServerSample = tuple[int, int, int]
"""Connections to a server, those that it has answered, and how long these waited for that, in microseconds."""


@attrs.frozen
class Observed:
    """A histogram: for each bucket but the last, its highest value and the number of all that were no higher; and number and sum of all."""

    buckets: Sequence[tuple[float, int]]
    count: int
    sum: float


@attrs.frozen
class ListenerTotals:
    """The numbers of a listener; `undecided` are live connections without a decision.

    Attributes:
        refused: Clients that were refused, by the limit that was reached.
        ech: Hidden hellos, ``opened`` and ``unopened``.
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
    ech: Mapping[str, int]
    datagrams: Mapping[str, int]
    detect: Observed
    duration: Observed


@attrs.frozen
class RouteTotals:
    """The numbers of a route, or of no route, for one listener; the last match is in seconds since 1970.

    There may be very many of these, so properties compute on demand.
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
        """Live connections; 0 for those without a route."""
        return live_on_route(self._cells)

    @property
    def bytes_in(self) -> int:
        return self._cells[_IN]

    @property
    def bytes_out(self) -> int:
        return self._cells[_OUT]

    @property
    def ended(self) -> Mapping[str, int]:
        return _named(_ENDED, self._cells)


@attrs.frozen
class ServerTotals:
    """The numbers of a server.

    Attributes:
        failed: Connections that could not be established, or that it reset before its first byte, by the cause.
        answered: Connections with a byte from it.
        answer_time: How long all of these together waited for it, in microseconds.
        last_failure: When, in seconds since 1970, and the cause; ``None`` if it has never failed.
    """

    backend: str
    server: str
    total: int
    active: int
    failed: Mapping[str, int]
    check_seconds: float | None
    checks_failed: int
    checks_recovered: int
    bytes_in: int
    bytes_out: int
    answered: int
    answer_time: int
    last_failure: tuple[float, ServerFailure] | None


@attrs.frozen
class Gauges:
    """Measured values of all processes; everything else is counted.

    Attributes:
        descriptors: Open ones and their limit, in the process with the least room.
        sources: The number of clients' addresses remembered for limits, by listener.
        certificates: The route, the file and when it expires, in seconds since 1970.
        troubles: What else needs an operator's attention, a sentence each.
        stale: By backend and server, for how many seconds the addresses of a name have not been confirmed, and why; ``None``
            if there never were any.
        up: The weight now, by backend and server, of each server that gets connections; only where all addresses were asked for.
        troubled: The names of backends of which not every server is up, in some process.
        held: How many clients wait for a server, by backend.
        acme: By name, in how many seconds a certificate from ACME expires; 0 if there is none yet.
        to_servers: Client certificates presented to servers: the backend, the file and when it expires.
        outside: The states of the outside sources that txmux uses.
        lost_lines: How many lines each log has lost that cannot be written now, by its name and the reason.
        bans: How many there are now, beside those of the rules.
        refusing: Refusals a second, by listener, limit (or ``no-route``) and source, or an empty text for all sources.
        flooding: Connections and flows a second that keep some process busy, by source, or an empty text for all sources.
        written_logs: The logs that took the last line of some process.
        cannot_accept: By listener, why some worker cannot accept its clients, and since when, in seconds since 1970.
        ech: By listener, the keys by which it opens hidden hellos, the published one first: each its number, its public name, and
            when it was written, in seconds since 1970.
        logins: By route, how many logins have waited lately to be checked, and the source of the most wrong ones, if they are many.
        ports: By backend and server, why no source port is left, how many connections failed so, and since when.
        unread: What workers could not read or open, beside what `troubles` has, a sentence each.
        missing: A line for each worker of which all this is missing, with the reason.
    """

    generations: int = 1
    descriptors: tuple[int, int] = (0, 0)
    sources: Mapping[str, int] = attrs.field(factory=dict)
    certificates: Sequence[tuple[str, str, float]] = ()
    up: Mapping[tuple[str, str], float] = attrs.field(factory=dict)
    troubles: Sequence[str] = ()
    troubled: Sequence[str] = ()
    stale: Mapping[tuple[str, str], tuple[float | None, str]] = attrs.field(factory=dict)
    to_servers: Sequence[tuple[str, str, float]] = ()
    held: Mapping[str, int] = attrs.field(factory=dict)
    acme: Mapping[str, float] = attrs.field(factory=dict)
    outside: Sequence[SourceState] = ()
    lost_lines: Mapping[str, int] = attrs.field(factory=dict)
    bans: int = 0
    refusing: Mapping[tuple[str, str, str], float] = attrs.field(factory=dict)
    flooding: Mapping[str, float] = attrs.field(factory=dict)
    written_logs: frozenset[str] = frozenset()
    cannot_accept: Mapping[str, tuple[str, float]] = attrs.field(factory=dict)
    ports: Mapping[tuple[str, str], tuple[str, int, float]] = attrs.field(factory=dict)
    ech: Mapping[str, Sequence[Sequence[Any]]] = attrs.field(factory=dict)
    logins: Mapping[str, tuple[int, str]] = attrs.field(factory=dict)
    unread: Sequence[str] = ()
    missing: Sequence[str] = ()

    def refused_by_many(self) -> dict[tuple[str, str], float]:
        """Return, by listener and limit (or ``no-route``), the refusals a second beside those of the two busiest sources."""
        rates: dict[tuple[str, str], list[float]] = {}
        for (listener, limit, _), rate in self.refusing.items():
            rates.setdefault((listener, limit), []).append(rate)
        return {key: beside_busiest(rates) for key, rates in rates.items()}

    @property
    def cluster(self) -> bool | None:
        """Whether limits and bans are shared by every process; ``None`` if they are this machine's own."""
        shared = [source for source in self.outside if source.name.startswith(("bans ", "limits "))]
        return all(source.up and source.age is not None for source in shared) if shared else None

    def stale_ages(self) -> dict[tuple[str, str], str]:
        """Describe, by backend and server, how old the addresses are that cannot be looked up again."""
        return {
            key: f"addresses {duration(age)} old: {why}"
            if age is not None
            else f"no address: {why}"
            for key, (age, why) in self.stale.items()
        }

    def stale_sentences(self) -> list[str]:
        ages = self.stale_ages().items()
        return [f"backend {backend}: {server}: {why}" for (backend, server), why in ages]

    @classmethod
    def of(cls, answers: Iterable[Mapping[str, Any]]) -> Gauges:
        """Combine the answers of all processes; see `txmux.control.gauges`."""
        answers = list(answers)
        generations = {number for answer in answers for number in answer.get("generations", ())}
        descriptors = [(answer[0], answer[1]) for answer in _all(answers, "descriptors")]
        sources: dict[str, int] = {}
        for counts in _all(answers, "sources"):
            for listener, count in counts.items():
                # Workers count in the same memory.
                sources[listener] = max(count, sources.get(listener, 0))
        lost_lines = Counter[str]()
        for counts in _all(answers, "lost_lines"):
            lost_lines.update(counts)
        refusing: dict[tuple[str, str, str], float] = {}
        for listener, limit, source, recent in itertools.chain.from_iterable(
            _all(answers, "refusing")
        ):
            key = listener, limit, source
            refusing[key] = refusing.get(key, 0.0) + recent
        flooding = Counter[str]()
        for rows in _all(answers, "flooding"):
            flooding.update(dict(rows))
        certificates = {
            (route, file): until
            for certificates in _all(answers, "certificates")
            for route, file, until in certificates
        }
        return cls(
            max(1, len(generations)),
            min(descriptors, key=lambda pair: pair[1] - pair[0], default=(0, 0)),
            sources,
            [(*key, until) for key, until in certificates.items()],
            troubles=_distinct(_all(answers, "troubles")),
            troubled=_distinct(_all(answers, "troubled")),
            unread=_distinct(_all(answers, "unread")),
            outside=SourceState.read(
                row for rows in _all(answers, "source_states") for row in rows
            ),
            lost_lines=lost_lines,
            refusing=refusing,
            flooding=flooding,
            written_logs=frozenset(itertools.chain(*_all(answers, "written_logs"))),
            ports=_lacking_ports(_all(answers, "ports")),
            logins=_crowds(_all(answers, "logins")),
            ech={name: keys for rows in _all(answers, "ech") for name, keys in rows.items()},
            cannot_accept={
                listener: (why, since)
                for rows in _all(answers, "cannot_accept")
                for listener, why, since in rows
            },
        )


def _distinct(reports: Iterable[Iterable[str]]) -> list[str]:
    return [*dict.fromkeys(itertools.chain(*reports))]


def _lacking_ports(
    reports: Iterable[Iterable[Sequence[Any]]],
) -> dict[tuple[str, str], tuple[str, int, float]]:
    ports: dict[tuple[str, str], tuple[str, int, float]] = {}
    for backend, server, why, count, since in itertools.chain(*reports):
        other, before, first = ports.get((backend, server), (why, 0, since))
        worst = max(why, other, key=lambda one: one.endswith(OF_FEW))
        ports[backend, server] = worst, before + count, min(first, since)
    return ports


def _crowds(reports: Iterable[Iterable[Sequence[Any]]]) -> dict[str, tuple[int, str]]:
    crowds: dict[str, tuple[int, str]] = {}
    for route, count, source in itertools.chain(*reports):
        crowds[route] = max(crowds.get(route, (0, "")), (count, source))
    return crowds


def _all(answers: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    return [answer[name] for answer in answers if name in answer]


@attrs.frozen
class Counts:
    """All numbers.

    Attributes:
        listeners: In the order of the rules.
        routes: In the order of the rules, listener by listener; after the routes of each, those that none has taken.
        detect_bytes: Bytes that clients had sent when they were decided.
        connect: Seconds from the decision until a server had accepted, by backend.
        first_byte: Seconds from the first byte to a server until its first byte, by backend.
        spliced: Bytes that the kernel has spliced.
        rules: The SHA-256 of the current rules; empty without a file.
        reloaded: Whether the last reload succeeded, and when it was, in seconds since 1970.
        attention: What needs an operator's attention, where it was asked for.
    """

    listeners: Sequence[ListenerTotals]
    routes: RoutesCounted
    detect_bytes: Observed
    connect: Mapping[str, Observed]
    first_byte: Mapping[str, Observed]
    servers: Sequence[ServerTotals]
    spliced: int
    restarts: int
    lost_lines: int
    gauges: Gauges = attrs.field(factory=Gauges)
    rules: str = ""
    reloaded: tuple[bool, float] = (True, 0.0)
    attention: Sequence[AttentionItem] = ()


class RoutesCounted(Iterable[RouteTotals]):
    """The numbers of routes, in the order of the rules, listener by listener; after the routes of each, those that none has taken.

    They are read as they are asked for, since there may be very many.
    """

    def __init__(self, reading: CountersReading, rules: Rules) -> None:
        self._reading = reading
        self._rules = rules

    def __iter__(self) -> Iterator[RouteTotals]:
        for listener in self._rules.listeners:
            for route in routes_of(self._rules, listener):
                yield self.of(listener.name, route.name)
            yield self.of(listener.name, NO_ROUTE)

    def of(self, listener: str, name: str) -> RouteTotals:
        key = ROUTE.key(listener, name)
        last = self._reading.latest(key, _LAST)
        return RouteTotals(listener, name, last / 1000 if last else None, self._reading.cells(key))

    def used(self) -> Iterator[RouteTotals]:
        """Yield those that have had a client, in no order, of all rules that are counted."""
        return (self.of(*names) for names, _ in self._reading.counted(ROUTE))


def counts_in_steps(
    counters: Counters, rules: Rules, backends: Mapping[str, Backend]
) -> Generator[None, None, Counts]:
    """Read the counters; `backends` are those that clients may be forwarded to."""
    reading = counters.read()
    servers = {
        (name, server.text): None
        for name, backend in backends.items()
        for server in backend.servers
    }
    process = reading.cells(PROCESS.key())
    return Counts(
        (yield from _each(lambda one: _listener(reading, one.name), rules.listeners)),
        RoutesCounted(reading, rules),
        _observed(LISTENER, DETECT_BYTES, _sum(reading, rules)),
        (yield from _by_backend(reading, backends, CONNECT)),
        (yield from _by_backend(reading, backends, FIRST_BYTE)),
        (yield from _each(lambda names: _server(reading, *names), servers)),
        process[PROCESS.at["spliced"]],
        process[PROCESS.at["restarts"]],
        process[PROCESS.at["lost lines"]],
    )


def _each(
    make: Callable[[_Item], _Made], items: Iterable[_Item]
) -> Generator[None, None, list[_Made]]:
    made = []
    for item in items:
        made.append(make(item))
        yield
    return made


def _by_backend(
    reading: CountersReading, names: Collection[str], buckets: Buckets
) -> Generator[None, None, dict[str, Observed]]:
    made = _each(lambda name: _observed(BACKEND, buckets, reading.cells(BACKEND.key(name))), names)
    return dict(zip(names, (yield from made), strict=True))


def _listener(reading: CountersReading, name: str) -> ListenerTotals:
    cells = reading.cells(LISTENER.key(name))
    return ListenerTotals(
        name,
        cells[LISTENER.at["accepted"]],
        live(cells),
        undecided(cells),
        cells[LISTENER.at["bytes in"]],
        cells[LISTENER.at["bytes out"]],
        _named(_REFUSED, cells),
        _named(_ECH, cells),
        _named(_DATAGRAMS, cells),
        _observed(LISTENER, DETECT, cells),
        _observed(LISTENER, DURATION, cells),
    )


def _sum(reading: CountersReading, rules: Rules) -> Sequence[int]:
    cells = [reading.cells(LISTENER.key(listener.name)) for listener in rules.listeners]
    return [sum(same) for same in zip(*cells, strict=True)] or [0] * len(LISTENER.names)


def _server(reading: CountersReading, backend: str, text: str) -> ServerTotals:
    key = SERVER.key(backend, text)
    cells, check_time = reading.cells(key), reading.latest(key, SERVER.at["check time"])
    return ServerTotals(
        backend,
        text,
        cells[SERVER.at["connected"]],
        live_on_server(cells),
        _named(_FAILED, cells),
        check_time / 1_000_000 if check_time else None,
        cells[SERVER.at["checks failed"]],
        cells[SERVER.at["checks recovered"]],
        cells[SERVER.at["bytes in"]],
        cells[SERVER.at["bytes out"]],
        cells[_ANSWERED],
        cells[_ANSWER_TIME],
        last_failure_of(reading.latest(key, SERVER.at["last failure"])),
    )


def server_samples(counters: Counters) -> dict[tuple[str, str], ServerSample]:
    """Read what the rates of servers need; those that have had no connection are left out."""
    return {
        (backend, server): (cells[_CONNECTED], cells[_ANSWERED], cells[_ANSWER_TIME])
        for (backend, server), cells in counters.read().counted(SERVER)
        if cells[_CONNECTED]
    }


def _named(positions: Mapping[str, int], cells: Sequence[int]) -> Mapping[str, int]:
    return {name: cells[at] for name, at in positions.items()}


def _observed(block: CounterGroup, buckets: Buckets, cells: Sequence[int]) -> Observed:
    start = block.histogram(buckets)
    counted = cells[start + 1 : start + 2 + len(buckets.bounds)]
    *below, count = itertools.accumulate(counted)
    bounds = [bound / buckets.base for bound in buckets.bounds]
    return Observed(
        list(zip(bounds, below, strict=True)), count, cells[start] / (buckets.parts * buckets.base)
    )


def totals(counters: Counters, listeners: Iterable[str]) -> tuple[int, int, int, int]:
    """Add up listeners: clients so far, live connections, bytes from clients and to them."""
    blocks = [counters.cells(LISTENER.key(name)) for name in listeners]
    accepted, bytes_in, bytes_out = (
        sum(cells[LISTENER.at[name]] for cells in blocks)
        for name in ("accepted", "bytes in", "bytes out")
    )
    return accepted, sum(map(live, blocks)), bytes_in, bytes_out


def hidden_hellos(counters: Counters, listener: str) -> Mapping[str, int]:
    return _named(_ECH, counters.cells(LISTENER.key(listener)))


def unrouted(counters: Counters, listeners: Iterable[str]) -> Unrouted:
    """Add up, over listeners, the ended connections that no route took, and the bytes of all such."""
    keys = [ROUTE.key(name, NO_ROUTE) for name in listeners]
    rows = [RouteTotals("", NO_ROUTE, None, counters.cells(key)) for key in keys]
    return {
        "ended": sum(sum(row.ended.values()) for row in rows),
        "bytes_in": sum(row.bytes_in for row in rows),
        "bytes_out": sum(row.bytes_out for row in rows),
    }
