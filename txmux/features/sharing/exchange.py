"""Limits of sources that several machines share through Redis. No client waits for Redis.

The process that owns the memory of the limits reports, for each listener, the sources that are at half of their limits or more: how many
connections each has here, and how many it has made. What other machines report goes into that memory: their connections beside those of
the processes here, and what was made there out of the bucket of the source. So workers need not know of Redis. A report is good for
fifteen seconds by Redis's clock, so what a machine had that is gone counts for no longer.
"""

from __future__ import annotations

import heapq
import itertools
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall

from txmux.access.per_source import PerSource
from txmux.features.sharing.client import SHARING_TIMES, STEADY, RedisClient, SharingTimes
from txmux.features.sharing.redis import RedisProtocol
from txmux.features.sharing.store import Store
from txmux.telemetry.sources import Source

OFTEN, _SELDOM = 0.25, 1.0
"""Seconds between two exchanges, the latter at most, where they take long: a table of very many sources takes 10 ms to look at."""
_SHARE = 0.04
"""Of one processor, that all exchanges take at most while that lets them be so often."""

_GOOD = 15  # seconds
_ROW = struct.Struct("<QIII")
"""A source, how many connections it has ever made, how many of them since the exchange before, and how many it has."""

_MOST = 1000  # rows of a report
_NUMBER = (1 << 32) - 1
_ALONE = "limits of sources apply to this machine alone"

_SCRIPT = """\
local now, found, others, size = tonumber(redis.call('TIME')[1]), redis.call('HGETALL', KEYS[1]), {}, 0
for at = 1, #found, 2 do
  local report = found[at + 1]
  local till = tonumber(string.sub(report, 1, 10))
  if not till or till < now or #report % 20 ~= 10 then
    redis.call('HDEL', KEYS[1], found[at])
  elseif found[at] ~= ARGV[1] and #others < 900 and size + #report < 900000 then
    size = size + #report
    others[#others + 1] = found[at]
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
        self._made: dict[int, int] | None = None  # by slot, at the last report
        self._at = 0.0
        self._busy: set[int] = set()  # slots
        self._elsewhere: dict[int, int] | None = None  # the slots of sources that others report
        self._known: dict[tuple[bytes, int], int] = {}  # what each has made, by machine and source

    def report(self, its: PerSource, now: float) -> bytes:
        """Return a `_ROW` for each of the busiest sources."""
        made, known = its.made(), {*self._busy, *(self._elsewhere or {}).values()}
        if self._made is None:  # what was made before is none of this report
            new = dict.fromkeys(made, 0)
        else:
            new = dict.fromkeys(known, 0)
            for slot, count in made.items():
                if count != (before := self._made.get(slot, 0)):
                    new[slot] = count - before if count > before else count
        busy = [*its.busy(new, now - self._at, known)]
        self._made, self._at, self._busy = made, now, {slot for slot, *_ in busy}
        rows = (
            (source, *(min(value, _NUMBER) for value in (count & _NUMBER, new[slot], here)))
            for slot, source, count, here in busy
        )
        most = heapq.nlargest(_MOST, rows, key=lambda row: row[2:])
        return b"".join(itertools.starmap(_ROW.pack, most))

    def hear(self, its: PerSource, answer: Iterable[bytes]) -> None:
        """Use the reports of other machines: their names, and what they report."""
        elsewhere, made = Counter[int](), Counter[int]()
        known: dict[tuple[bytes, int], int] = {}
        parts = iter(answer)
        for machine, rows in zip(parts, parts, strict=True):
            for source, count, new, there in _ROW.iter_unpack(rows):
                before = self._known.get((machine, source))
                made[source] += new if before is None or count < before else count - before
                elsewhere[source] += there
                known[machine, source] = count
        if self._elsewhere is None:  # another process may have owned this memory
            its.forget_elsewhere()
        sources = {*(self._elsewhere or ()), *elsewhere}
        slots = {source: its.apply(source, elsewhere[source], made[source]) for source in sources}
        self._elsewhere = {
            source: slot for source in elsewhere if (slot := slots[source]) is not None
        }
        self._known = known


class SharedSources:
    """Shares the limits by source of a service with other machines.

    Args:
        sources: Returns the counters of the sources of each listener; none while another process does this.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        sources: Callable[[], Mapping[str, PerSource | None]],
        times: SharingTimes = SHARING_TIMES,
    ) -> None:
        self._reactor = reactor
        self._sources = sources
        self._exchanges: dict[tuple[str, str], SourceExchange] = {}
        self._is_exchanging = self.is_up = False
        self.source = Source(
            "limits", store.text, _ALONE, reactor.seconds, steady=STEADY, overdue=STEADY
        )
        self._client = RedisClient(reactor, store, self._start, self._is_away, times=times)
        self._loop = LoopingCall(self._start)
        self._loop.clock = reactor

    def start(self) -> None:
        self.source.requested()
        self._client.start()
        self._loop.start(OFTEN, now=False)

    def stop(self) -> Deferred[Any]:
        if self._loop.running:
            self._loop.stop()
        self._forget()
        return self._client.stop()

    def _shared(self) -> dict[tuple[str, str], PerSource]:
        return {
            (name, its.table): its
            for name, its in self._sources().items()
            if its is not None and its.is_shareable
        }

    def _start(self) -> None:
        if self._client.redis is not None and not self._is_exchanging:
            self._client.run(self._exchange(self._client.redis))

    async def _exchange(self, redis: RedisProtocol) -> None:
        self._is_exchanging = True
        if self.is_up:
            self.source.requested()
        try:
            began = time.thread_time()
            shared, before = self._shared(), self._exchanges
            self._exchanges = {key: before.get(key) or SourceExchange() for key in shared}
            asked = [redis.execute(*self._words(key, its)) for key, its in shared.items()] or [
                redis.execute("PING")
            ]
            took = time.thread_time() - began
            self._loop.interval = min(max(OFTEN, took / _SHARE), _SELDOM)
            answers = await gatherResults(asked, consumeErrors=True)
            for its, exchange, answer in zip(
                shared.values(), self._exchanges.values(), answers, strict=False
            ):
                exchange.hear(its, answer)
        finally:
            self._is_exchanging = False
        self.is_up = True
        self.source.answered()

    def _words(self, key: tuple[str, str], its: PerSource) -> tuple[str | int | bytes, ...]:
        (name, machine), report = key, self._exchanges[key].report(its, self._reactor.seconds())
        return ("EVAL", _SCRIPT, 1, f"txmux:{{{name}}}:sources", machine, report, _GOOD)

    def _is_away(self, why: str) -> None:
        """Limit by the counts of this machine alone."""
        self.is_up = False
        self.source.failed(why)
        self.source.requested()
        self._forget()

    def _forget(self) -> None:
        for key, its in self._shared().items():
            if key in self._exchanges:
                self._exchanges[key].hear(its, ())
        self._exchanges.clear()
