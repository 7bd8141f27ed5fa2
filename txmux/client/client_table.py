"""The clients of a process by source: which are the busiest, and which are refused at limits."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from txmux.net.relay.interface import RelayedBytes
from txmux.net.turns import Turns
from txmux.telemetry.attention import of_few
from txmux.telemetry.reasons import EndReason, LimitName
from txmux.telemetry.record import ConnectionRecord
from txmux.transport import source_of_client

Refused: TypeAlias = "LimitName | Literal['no-route']"

Source: TypeAlias = str | bytes
"""An IPv4 address, ``unix``, or the first 64 bits of an IPv6 address: turning those into text would cost more than counting."""

Row: TypeAlias = tuple[str, int, int, float, int, int, int, int, float]
"""A source, its live and its ended connections, its newest connections a second (see `rate_of`), the bytes from it and to it, how
many of its connections were refused, and how many no route took, and since when, in seconds since 1970."""

MOST_SOURCES = 1000
"""The most sources that a process reports."""

_MEMORY = 15.0  # seconds in which the weight of a connection falls to 1/e
_SHORTEST = 5.0  # seconds: of one connection in less, nothing is known about a rate
_STEP = 0.25  # seconds for which all connections have the same weight
_MOST_POWER = 200.0  # of e, long before weights overflow

_MOST_REFUSED = 100  # sources of one limit that are remembered
_REPORTED = 5  # of those
_LEAST = 0.001  # refusals a second; fewer are of minutes ago
_OFTEN = 32  # connections between two steps
_AT_ONCE = 64  # ended connections
_PORT_KEPT = 60.0
"""Seconds for which the system keeps the port of an ended connection (TCP_TIMEWAIT_LEN)."""
_BUSY, _CALM = 0.8, 0.6  # of the time: from that on a process is busy, and until this
BUSY = 50.0
"""Connections and flows a second that may keep a process busy."""
_SAMPLE = 2.0  # seconds
_SCHEDULED = Path("/proc/self/schedstat")
_REFUSED: frozenset[EndReason] = frozenset({"limit", "denied"})


def rate_of(recent: float, since: float, now: float) -> float:
    # `recent` alone is too low for a source that has just come.
    return recent / -math.expm1(-max(now - since, _SHORTEST) / _MEMORY)


class CountedClient(Protocol):
    """What is asked of a `txmux.client.session.ClientSession`."""

    record: ConnectionRecord

    @property
    def unrecognised(self) -> bytes | None: ...

    def elapsed_ms(self) -> float: ...
    def relayed(self) -> RelayedBytes: ...


class Entry:
    """The counts of a source since it is in the table.

    Attributes:
        score: The sum of the weights of its connections.
        inherited: The most that it may have had before.
    """

    __slots__ = (
        "bytes_in", "bytes_out", "ended", "inherited", "refused", "score", "since", "unrecognised",
    )  # fmt: skip

    def __init__(self, since: float, inherited: float) -> None:
        self.since, self.inherited, self.score = since, inherited, 0.0
        self.ended = self.bytes_in = self.bytes_out = self.refused = self.unrecognised = 0


class BusiestSources:
    """The sources with the most events, by Space-Saving (Metwally, Agrawal, El Abbadi, 2005).

    Any source with more than a `most`-th of the weight of all events is in it. One that is new has the rank that it may have had:
    the highest of those that were left out. Half of the entries are left out at once, so an event takes constant time on average.

    Weights grow with time (Cormode et al., *Forward Decay*, 2009): so the rank of an old flood falls, and nothing has to be done
    to its entry.

    Attributes:
        total: The weight of all events.
    """

    def __init__(self, seconds: Callable[[], float], most: int = MOST_SOURCES) -> None:
        self._seconds, self._most = seconds, most
        self.entries: dict[Source, Entry] = {}
        self.total = 0.0
        self._floor = 0.0
        self._start = self._changes_at = seconds()
        self._weight = 1.0

    def weight(self) -> float:
        """Return the weight of an event that begins now."""
        now = self._seconds()
        if now >= self._changes_at:
            self._grow(now)
        return self._weight

    def add(self, source: Source, since: float, weight: float) -> Entry:
        """Count an event, which began at `since`, in seconds since 1970; see `weight`."""
        entry = self.entries.get(source)
        if entry is None:
            entry = self._enter(source, since)
        entry.score += weight
        self.total += weight
        return entry

    def recent(self, weight: float) -> float:
        return weight * math.exp((self._start - self._seconds()) / _MEMORY) / _MEMORY

    def best(self, most: int) -> list[tuple[Source, Entry]]:
        ranked = sorted(self.entries.items(), key=lambda pair: -pair[1].score)
        return ranked[:most]

    def _enter(self, source: Source, since: float) -> Entry:
        if len(self.entries) >= 2 * self._most:
            ranked = sorted(self.entries.items(), key=_rank, reverse=True)
            self._floor = _rank(ranked[self._most])
            self.entries = dict(ranked[: self._most])
        entry = self.entries[source] = Entry(since, self._floor)
        return entry

    def _grow(self, now: float) -> None:
        self._changes_at = now + _STEP
        power = (now - self._start) / _MEMORY
        if power > _MOST_POWER:
            self._start, factor, power = now, math.exp(-power), 0.0
            self.total *= factor
            self._floor *= factor
            for entry in self.entries.values():
                entry.score *= factor
                entry.inherited *= factor
        self._weight = math.exp(power)


def _rank(pair: tuple[Source, Entry]) -> float:
    return pair[1].inherited + pair[1].score


class ClientTable:
    """Counts the connections and flows of a process by source."""

    def __init__(
        self, seconds: Callable[[], float], cpu: Callable[[], float] | None = None
    ) -> None:
        self._seconds, self._cpu = seconds, cpu or _busy_seconds
        self._sampled = seconds(), self._cpu()
        self._is_busy = False
        self._sources = BusiestSources(seconds)
        # Counted together, which costs each a half: the records of those that have ended, and of which no route took the client.
        self._ended: list[ConnectionRecord] = []
        self._unrecognised: list[ConnectionRecord] = []
        self._refusing: dict[tuple[str, Refused], BusiestSources] = {}

    def ended(self, client: CountedClient) -> None:
        """Count a connection or flow that has just ended in this process."""
        ended, record = self._ended, client.record
        ended.append(record)
        if client.unrecognised is not None:
            self._unrecognised.append(record)
        if len(ended) >= _AT_ONCE:
            self._count_ended()

    def _count_ended(self) -> None:
        sources, now = self._sources, self._sources.weight()
        for record in self._ended:
            age = (record.duration_ms or 0.0) / 1000
            weight = now if age < _STEP else now * math.exp(-age / _MEMORY)
            entry = sources.add(source_of_client(record.client), record.time, weight)
            entry.ended += 1
            entry.bytes_in += record.bytes_in
            entry.bytes_out += record.bytes_out
            if record.reason in _REFUSED:
                entry.refused += 1
        for record in self._unrecognised:
            sources.add(source_of_client(record.client), record.time, 0.0).unrecognised += 1
            self.limited(record.listener, "no-route", record.client)
        self._ended.clear()
        self._unrecognised.clear()

    def turned_away(self, client: str, now: float) -> None:
        """Count a client that was refused at `now`, in seconds since 1970, before it had a connection or flow."""
        entry = self._sources.add(source_of_client(client), now, self._sources.weight())
        entry.ended += 1
        entry.refused += 1

    def limited(self, listener: str, limit: Refused, client: str) -> None:
        """Record whom a limit has refused, or no route has taken; its end is counted, too."""
        key = listener, limit
        if key not in self._refusing:
            self._refusing[key] = BusiestSources(self._seconds, _MOST_REFUSED)
        sources = self._refusing[key]
        sources.add(source_of_client(client), 0.0, sources.weight())

    def refusing(self) -> Iterator[tuple[str, Refused, str, float]]:
        """Yield whom limits refuse, or no route takes: the listener, the limit, the source or an empty text for all, and how many a second."""
        self._count_ended()  # often enough that their weight is right
        for (listener, limit), sources in [*self._refusing.items()]:
            of_all = sources.recent(sources.total)
            if of_all < _LEAST:
                del self._refusing[listener, limit]
                continue
            yield listener, limit, "", of_all
            for source, entry in sources.best(_REPORTED):
                yield listener, limit, _text_of(source), sources.recent(entry.score)

    def newest(self) -> Iterator[tuple[str, float]]:
        """Yield whose connections end most often, if many do: the source or an empty text for all, and how many a second."""
        self._count_ended()
        sources = self._sources
        of_all = sources.recent(sources.total)
        if of_all >= BUSY:
            yield "", of_all
            for source, entry in sources.best(_REPORTED):
                yield _text_of(source), sources.recent(entry.score)

    def is_flooded(self) -> bool:
        """Return whether they keep this process busy."""
        self._count_ended()
        now, cpu = self._seconds(), self._cpu()
        then, before = self._sampled
        if now - then >= _SAMPLE:
            self._sampled = now, cpu
            self._is_busy = (cpu - before) / (now - then) >= (_CALM if self._is_busy else _BUSY)
        return self._is_busy and self._sources.recent(self._sources.total) >= BUSY

    async def of_few(self, live: Iterable[CountedClient], backend: str | None = None) -> str:
        """Return `OF_FEW` if two sources have so much that there would be room without them; else an empty text.

        Args:
            live: All connections and flows of the process, of which each takes descriptors.
            backend: The one towards which ports are meant, which are taken after a connection's end, too.
        """
        counts = Counter[Source]()
        async for client in Turns().each(live, _has_ended):
            if backend in {None, client.record.backend}:
                counts[source_of_client(client.record.client)] += 1
        few = of_few(counts)
        if backend is not None and not few:
            self._count_ended()
            for source, entry in self._sources.entries.items():
                counts[source] += round(_PORT_KEPT * self._sources.recent(entry.score))
            few = of_few(counts)
        return few

    def rows(self, live: Iterable[CountedClient]) -> Generator[None, None, list[Row]]:
        """Return the busiest sources, as of the first step: those with the most live connections, then the newest.

        Args:
            live: All connections and flows of the process, listed just before that.
        """
        self._count_ended()
        total: dict[Source, list[float]] = {
            source: [
                0, entry.ended, self._sources.recent(entry.score), entry.bytes_in,
                entry.bytes_out, entry.refused, entry.unrecognised, entry.since,
            ]
            for source, entry in self._sources.entries.items()
        }  # fmt: skip
        for number, client in enumerate(live):
            if not number % _OFTEN:
                yield
            record = client.record
            # It may have ended since the first step.
            counted = client.relayed() if record.reason is None else record
            source, age = source_of_client(record.client), client.elapsed_ms() / 1000
            row = total.get(source)
            if row is None:
                row = total[source] = [0, 0, 0.0, 0, 0, 0, 0, record.time]
            row[0] += 1
            row[2] += math.exp(-age / _MEMORY) / _MEMORY
            row[3] += counted.bytes_in
            row[4] += counted.bytes_out
            row[6] += client.unrecognised is not None
            row[7] = min(row[7], record.time)
        ranked: list[tuple[Source, list[float]]] = []
        every = iter(total.items())
        while more := [*itertools.islice(every, MOST_SOURCES)]:
            ranked = sorted(
                [*ranked, *more], key=lambda pair: (pair[1][0], pair[1][2]), reverse=True
            )[:MOST_SOURCES]
            yield
        return [(_text_of(source), *row) for source, row in ranked]  # type: ignore[misc]


def _has_ended(client: CountedClient) -> bool:
    return client.record.reason is not None


def _busy_seconds() -> float:
    """Return how long this process has had something to do, whether or not it got a core for that."""
    try:
        worked, waited, _ = map(int, _SCHEDULED.read_text().split())
    except (OSError, ValueError):
        return time.process_time()
    return (worked + waited) / 1e9


def _text_of(source: Source) -> str:
    return source if isinstance(source, str) else f"{IPv6Address(source + bytes(8))}/64"
