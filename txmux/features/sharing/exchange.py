"""Limits of sources that several machines share through Redis. No client waits for Redis.

The process that owns the memory of the limits reports, for each listener, the sources that are at half of their limits or more: how many
connections each has here, and how many it has made. What other machines report goes into that memory: their connections beside those of
the processes here, and what was made there out of the bucket of the source. So workers need not know of Redis. A report is good for
fifteen seconds by Redis's clock, so what a machine had that is gone counts for no longer.
"""

import heapq
import struct
import time
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall

from txmux.access.per_source import PerSource
from txmux.features.sharing.client import SHARING_TIMES, STEADY, RedisClient, RedisProtocol
from txmux.features.sharing.store import Store
from txmux.net.turns import Turns
from txmux.telemetry.sources import Source

T = TypeVar("T")

OFTEN, _SELDOM = 0.25, 4.0
"""Seconds between two exchanges, the latter at most, where they take long: a table of very many sources takes 10 ms to look at."""
_KEPT = 2 * _SELDOM
"""Seconds for which a source is reported after it was last busy, so that each machine hears of all that it has made."""
_SHARE = 0.04
"""Of one processor, that all exchanges take at most while that lets them be so often."""

_GOOD = 15  # seconds
ROW = struct.Struct("<QIII")
"""A source, how many connections it has ever made, how many of them since it became busy, and how many it has."""
KEY = "txmux:{%s}:sources:1"
"""The number is of what is reported: machines that report something else would not understand each other."""

_MOST = 1000  # rows of a report
_BATCH = 64  # sources for which no process waits long
_NUMBER = (1 << 32) - 1
_ALONE = "limits of sources apply to this machine alone"

_SCRIPT = """\
local now, good, found, others, size = tonumber(redis.call('TIME')[1]), ARGV[3], redis.call('HGETALL', KEYS[1]), {}, 0
for at = 1, #found, 2 do
  local name, report = found[at], found[at + 1]
  local till = tonumber(string.sub(report, 1, 10))
  if not (till and till >= now and till <= now + good) or #report % 20 ~= 10 or #name > 64 then
    redis.call('HDEL', KEYS[1], name)
  elseif name ~= ARGV[1] and size + #name + #report < 900000 then
    size = size + #name + #report
    others[#others + 1] = name
    others[#others + 1] = string.sub(report, 11)
  end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%010d', now + ARGV[3]) .. ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return others
"""
"""Takes the name of a machine, its report, and for how many seconds that is good; returns the names and reports of the others."""


class SourceExchange:
    """What is known of the sources of one listener, here and at other machines."""

    def __init__(self) -> None:
        self._made: list[int] = []  # at the last report
        self._at = 0.0
        self._rows: dict[int, tuple[int, int, float]] = {}
        """By slot: the source, how many connections it had made before it became busy, and until when it is reported."""
        self._reported_slots: dict[int, int] = {}  # the slots of sources that others report
        self._known: dict[bytes, dict[int, int]] | None = None
        """What each source has made, by machine."""

    def report(self, its: PerSource, now: float) -> Generator[None, None, bytes]:
        """Return a `ROW` for each source that is busy, or was lately: those nearest to their limits, and rather those reported before."""
        is_first, new = not self._made, its.made(self._made)
        if is_first:  # what was made before is none of this report
            new = dict.fromkeys(new, 0)
        known = {*self._reported_slots.values()}
        new = dict.fromkeys((*known, *self._rows), 0) | new
        ranked = list[tuple[float, int, tuple[int, int, float], bytes]]()
        busy = its.busy(new, max(now - self._at, OFTEN), known)
        for number, (slot, source, count, here, near) in enumerate(busy):
            if not number % _BATCH:
                yield
            before, base, until = self._rows.get(slot, (None, 0, 0.0))
            if before != source or count < base:
                base, until = count - new[slot] if before is None else 0, 0.0
            if near >= 0:
                until = now + _KEPT
            if until > now:
                numbers = (min(count - base, _NUMBER), min(here, _NUMBER))
                row = ROW.pack(source, count & _NUMBER, *numbers)
                ranked.append((near + (before == source) / 4, slot, (source, base, until), row))
        most = heapq.nlargest(_MOST, ranked)
        self._at, self._rows = now, {slot: state for _, slot, state, _ in most}
        return b"".join(row for *_, row in most)

    def hear(self, its: PerSource, answer: Iterable[bytes]) -> Iterator[None]:
        """Use the reports of other machines: their names, and what they report. What they had made before the first one is charged to nobody."""
        elsewhere, made = Counter[int](), Counter[int]()
        known: dict[bytes, dict[int, int]] = {}
        parts = iter(answer)
        for machine, rows in zip(parts, parts, strict=True):
            heard = known[machine] = {}
            before = {} if self._known is None else self._known.get(machine, {})
            for source, count, new, there in ROW.iter_unpack(rows):
                had = before.get(source, count + 1)
                made[source] += new if count < had else count - had
                elsewhere[source] += there
                heard[source] = count
            yield
        if self._known is None:
            made.clear()
        slots = dict[int, int]()
        sources = [*{*self._reported_slots, *elsewhere}]
        for first in range(0, len(sources), _BATCH):
            yield
            slots |= its.apply(
                {
                    source: (self._reported_slots.get(source), elsewhere[source], made[source])
                    for source in sources[first : first + _BATCH]
                }
            )
        self._reported_slots = {source: slots[source] for source in elsewhere if source in slots}
        self._known = known


class SharedSources:
    """Shares the limits by source of a service with other machines.

    Args:
        sources: Returns the counters of the sources of each listener; none while another process does this.

    Attributes:
        names: By what names other machines know listeners that have another one here.
    """

    def __init__(
        self, reactor: Any, store: Store, sources: Callable[[], Mapping[str, PerSource | None]]
    ) -> None:
        self._reactor = reactor
        self._sources = sources
        self.exchanges: dict[tuple[str, str], SourceExchange] = {}
        self.names: Mapping[str, str] = {}
        self.is_exchanging = self.is_up = False
        self._took = 0.0  # of a processor, by the present exchange
        self.source = Source(
            "limits", store.text, _ALONE, reactor.seconds, steady=STEADY, overdue=STEADY
        )
        self.client = RedisClient(
            reactor, store, self._start, self.connection_failed, times=SHARING_TIMES
        )
        self._loop = LoopingCall(self._start)
        self._loop.clock = reactor

    def start(self) -> None:
        self.source.requested()
        self.client.start()
        self._loop.start(OFTEN, now=False)

    def stop(self) -> Deferred[Any]:
        if self._loop.running:
            self._loop.stop()
        self.exchanges = {}
        self._forget()
        return self.client.stop()

    def _shared(self) -> dict[tuple[str, str], PerSource]:
        return {
            (name, its.table): its
            for name, its in self._sources().items()
            if its is not None and its.is_shareable
        }

    def _start(self) -> None:
        if self.client.redis is not None and not self.is_exchanging:
            self.client.run(self._exchange_reports(self.client.redis))

    async def _exchange_reports(self, redis: RedisProtocol) -> None:
        self.is_exchanging = True
        if self.is_up:
            self.source.requested()
        try:
            self._took, turns = 0.0, Turns()
            shared, before = self._shared(), self.exchanges
            exchanges = {key: before.get(key) or SourceExchange() for key in shared}
            self.exchanges = exchanges
            self._forget(exchanges.keys() ^ before.keys())
            reporting = [
                exchanges[key].report(its, self._reactor.seconds()) for key, its in shared.items()
            ]
            reports = [await turns.run(self._measured(one)) for one in reporting]
            keys = [KEY % self.names.get(name, name) for name, _ in shared]
            asked = [
                redis.execute("EVAL", _SCRIPT, 1, key, machine, report, _GOOD)
                for key, (_, machine), report in zip(keys, shared, reports, strict=True)
            ]
            answers = await gatherResults(asked or [redis.execute("PING")], consumeErrors=True)
            for (key, its), answer in zip(shared.items(), answers, strict=False):
                await turns.run(self._measured(self._hear(key, its, answer)))
            self._loop.interval = min(max(OFTEN, self._took / _SHARE), _SELDOM)
        finally:
            self.is_exchanging = False
        if self.exchanges is exchanges:  # otherwise Redis has gone since it answered
            self.is_up = True
            self.source.answered()

    def _hear(
        self, key: tuple[str, str], its: PerSource, answer: Iterable[bytes]
    ) -> Generator[None, None, None]:
        exchange = self.exchanges.get(key)
        for _ in () if exchange is None else exchange.hear(its, answer):
            yield
            # Redis may have gone meanwhile, or this memory to another process: that has forgotten what was heard.
            if self.exchanges.get(key) is not exchange or key not in self._shared():
                return

    def _measured(self, steps: Generator[None, None, T]) -> Generator[None, None, T]:
        while True:
            began = time.thread_time()
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._took += time.thread_time() - began
            yield

    def connection_failed(self, why: str) -> None:
        """Limit by the counts of this machine alone."""
        self.is_up = False
        self.source.failed(why)
        self.source.requested()
        self.exchanges = {}
        self._forget()

    def _forget(self, keys: Container[tuple[str, str]] | None = None) -> None:
        """Count nothing of other machines; those that are not shared may have been."""
        for name, its in self._sources().items():
            if its is not None and (keys is None or (name, its.table) in keys):
                its.forget_elsewhere()
