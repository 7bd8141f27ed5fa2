"""Limits of sources that several machines share through Redis. No client waits for Redis.

Rates: each machine leases tokens for the sources that are busy. One that makes less than half of its burst in the time in which that comes
back needs no request at all; for others some tokens are leased ahead, and a client that comes while an answer is on its way is let in and
counted with the next question. The buckets are in Redis as the time at which each is full again (GCRA, the generic cell rate algorithm of
ITU-T I.371), by Redis's own clock.

Numbers of connections: each machine reports those of the sources that have many, for as long as they do. A count is good for fifteen seconds
and reported each second, so what a machine had that is gone counts for no longer. What other machines have is known from the last answer.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txmux.classes import define
from txmux.client.parts import ServingPart
from txmux.features.sharing.client import SHARING_TIMES, STEADY, RedisClient
from txmux.features.sharing.redis import RedisProtocol, reason
from txmux.features.sharing.store import Store, store_of
from txmux.rules.model import Rules
from txmux.telemetry.sources import Source

_SLOW = 0.02
"""Seconds after which an answer is useless: too many uncounted clients may have come by then."""

_SHORTEST, _LONGEST = 1.0, 30.0  # seconds until a slow Redis is tried again
_MOST_QUESTIONS = 1000  # in a second
_MOST_TOKENS = 10
_WORTH, _GOOD = 0.1, 1.0
"""Seconds of use for which tokens are leased ahead; they expire after that."""

_MOST_LEASES = 100_000
_MICROSECONDS = 1000  # a microsecond, in nanoseconds
_OFTEN, _COUNT_GOOD = 1.0, 15.0
"""Seconds between two reports of a number of connections, and for which one is valid."""
_MOST_COUNTED = 10_000

_ALONE = "limits of sources apply to this machine alone"

_SCRIPT = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[1] == 'rate' then
  local interval, burst, want, spent = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
  local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + spent * interval
  local granted = math.max(0, math.min(want, math.floor((now + burst * interval - full) / interval)))
  full = full + granted * interval
  if full > now then
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
  end
  return {granted, math.max(0, math.ceil(full + interval - burst * interval - now))}
end
local machine, count, good = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local found, others = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #found, 2 do
  local held, till = string.match(found[at + 1], '^(%d+) (%d+)$')
  if not till or tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], found[at])
  elseif found[at] ~= machine then
    others = others + tonumber(held)
  end
end
if count > 0 then
  redis.call('HSET', KEYS[1], machine, count .. ' ' .. string.format('%.0f', now + good * 1000))
  redis.call('PEXPIRE', KEYS[1], good)
else
  redis.call('HDEL', KEYS[1], machine)
end
return {others, 0}
"""
"""For ``rate``: takes the interval of a token in microseconds, the burst, how many tokens to take, and how many were used without a request.
Returns how many are granted, and the microseconds until there is another one.

For ``count``: takes the name of a machine, how many connections it has, and the milliseconds for which that is good. Returns how many
others have, and 0."""

_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


@define(eq=False)
class _Lease:
    """The leased tokens of one busy source."""

    tokens: int = 0
    good_until: float = 0.0
    empty_until: float = 0.0  # when there may be another token
    spent: int = 0  # connections that were made without a token, and have not been reported yet
    is_asking: bool = False
    seen: float = 0.0


class Leases:
    """The sources of one listener."""

    def __init__(self, rates: SharedRates, listener: str) -> None:
        self._rates = rates
        self._listener = listener
        self._leases: dict[int, _Lease] = {}
        self._recent: dict[int, int] = {}
        self._until = 0.0
        self.counts = SharedCounts(rates, listener)
        self.at_other_machines = self.counts.at_other_machines

    def take(self, source: int, used: int, interval: int, burst: int) -> bool:
        """Return whether a source that this machine's own bucket admits may connect.

        It has used `used` of `burst` connections in that bucket, to which one is added each `interval`, in nanoseconds.
        """
        rates = self._rates
        if not rates.is_up:
            return True
        now = rates.seconds()
        if now >= self._until:
            self._forget_idle(now, interval * burst / 1e9)
        lease = self._leases.get(source)
        if lease is None:
            mine = self._recent.get(source, 0)
            if 2 * max(used, mine) < burst or len(self._leases) >= _MOST_LEASES:
                if mine or len(self._recent) < _MOST_LEASES:
                    self._recent[source] = mine + 1
                return True
            lease = self._leases[source] = _Lease(spent=min(mine, used))
        lease.seen = now
        ahead = max(1, min(_MOST_TOKENS, round(_WORTH * 1e9 / interval), burst // 4))
        if lease.tokens and now < lease.good_until:
            lease.tokens -= 1
            if 2 * lease.tokens <= ahead - 1:
                self._ask(source, lease, interval, burst, ahead)
            return True
        if now < lease.empty_until:
            return False
        lease.spent += 1
        self._ask(source, lease, interval, burst, ahead)
        return True

    def _forget_idle(self, now: float, window: float) -> None:
        self._recent.clear()
        self._leases = {
            source: lease
            for source, lease in self._leases.items()
            if lease.is_asking or now - lease.seen < window
        }
        self._until = now + window

    def _ask(self, source: int, lease: _Lease, interval: int, burst: int, ahead: int) -> None:
        if lease.is_asking:
            return
        spent = lease.spent = min(lease.spent, burst)
        key = f"txmux:{{{self._listener}:{source:x}}}"
        arguments = ("rate", max(1, interval // _MICROSECONDS), burst, ahead, spent)

        def answered(granted: int, wait: float) -> None:
            now = self._rates.seconds()
            lease.is_asking = False
            lease.spent -= spent
            # Clients that came meanwhile have used some of it.
            paid = min(granted, lease.spent)
            lease.spent -= paid
            fresh = lease.tokens if now < lease.good_until else 0
            lease.tokens = fresh + granted - paid
            lease.good_until = now + max(_GOOD, 2 * interval / 1e9)
            lease.empty_until = now + wait if not granted else 0.0
            if lease.spent:
                self._ask(source, lease, interval, burst, 0)

        lease.is_asking = True
        if not self._rates.ask(key, arguments, answered):
            lease.is_asking = False

    def forget(self) -> None:
        """Forget all leases, since Redis does not answer."""
        self.counts.forget()
        self._leases.clear()
        self._recent.clear()


@define(eq=False)
class _CountedSource:
    """A source with many connections."""

    others: int = 0  # connections at other machines
    known_until: float = 0.0  # until when that number is valid
    is_asking: bool = False


class SharedCounts:
    """The numbers of connections of the sources of one listener."""

    def __init__(self, rates: SharedRates, listener: str) -> None:
        self._rates = rates
        self._listener = listener
        self._machine = ""
        self._count: Callable[[int], int] = lambda _: 0
        self._sources: dict[int, _CountedSource] = {}
        self._call: Any = None

    def at_other_machines(
        self, source: int, here: int, limit: int, machine: str, count: Callable[[int], int]
    ) -> int:
        """Return how many connections a source has at other machines, as far as is known; it has `here` at this one."""
        rates, self._machine, self._count = self._rates, machine, count
        if not rates.is_up:
            return 0
        counted = self._sources.get(source)
        if counted is None:
            # The connection that is about to be counted is included.
            if 2 * (here + 1) < limit or len(self._sources) >= _MOST_COUNTED:
                return 0
            counted = self._sources[source] = _CountedSource()
            self._report(source, counted, here + 1)
            if self._call is None:
                self._call = rates.later(_OFTEN, self._report_all)
        return counted.others if rates.seconds() < counted.known_until else 0

    def _report_all(self) -> None:
        self._call = None
        for source, counted in [*self._sources.items()]:
            here = self._count(source)
            if not here and not counted.is_asking:
                del self._sources[source]
            self._report(source, counted, here)
        if self._sources:
            self._call = self._rates.later(_OFTEN, self._report_all)

    def _report(self, source: int, counted: _CountedSource, here: int) -> None:
        if counted.is_asking:
            return

        def answered(others: int, _: float) -> None:
            counted.is_asking = False
            counted.others = others
            counted.known_until = self._rates.seconds() + _COUNT_GOOD

        key = f"txmux:{{{self._listener}:{source:x}}}:held"
        arguments = ("count", self._machine, here, round(_COUNT_GOOD * 1000))
        counted.is_asking = True
        if not self._rates.ask(key, arguments, answered):
            counted.is_asking = False

    def forget(self) -> None:
        self._sources.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None


class SharedRates(ServingPart):
    """Runs the script in Redis while its answers are fast."""

    def __init__(self, reactor: Any, seconds: Callable[[], float], *, logs: bool = True) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self.later = reactor.callLater
        self._logs = logs
        self.is_up = False
        self._listeners: dict[str, Leases] = {}
        self._store: Store | None = None
        self._client: RedisClient | None = None
        self._source: Source | None = None
        self._sent_at: deque[float] = deque()
        self._epoch = 0
        self._latency_timer: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._wait = _SHORTEST
        self._second = 0
        self._questions = 0

    def limits_elsewhere(self, listener: str) -> Leases:
        if listener not in self._listeners:
            self._listeners[listener] = Leases(self, listener)
        return self._listeners[listener]

    def commit(self, rules: Rules) -> None:
        """Share limits through the Redis of these rules; without one, the sharing ends."""
        store = store_of(rules.settings)
        if store == self._store:
            return
        self.stop()
        self._store = store
        if store is not None:
            self._source = Source(
                "limits",
                store.text,
                _ALONE,
                self.seconds,
                steady=STEADY,
                overdue=STEADY,
                logs=self._logs,
            )
            made = RedisClient(self._reactor, store, self._check, self._down)
            self._client = made
            self._reactor.callWhenRunning(made.start)

    def sources(self) -> Iterable[Source]:
        return () if self._source is None else (self._source,)

    def _down(self, why: str) -> None:
        """Limit by this machine's counts alone."""
        self.is_up = False
        self._epoch += 1
        for source in self.sources():
            source.failed(why)
        self._sent_at.clear()
        for call in (self._latency_timer, self._again):
            if call is not None:
                call.cancel()
        self._latency_timer = self._again = None
        for listener in self._listeners.values():
            listener.forget()

    def _check(self) -> None:
        """Load the script, and check that its answer comes in time."""
        self._again = None

        def answered(_: int, __: int) -> None:
            self.is_up = True
            is_steady = not any(source.why for source in self.sources())
            if is_steady:
                self._wait = _SHORTEST
            if self._again is None:
                wait = SHARING_TIMES.pings if is_steady else STEADY
                self._again = self._reactor.callLater(wait, self._check)

        self._send(answered, "EVAL", _SCRIPT, 1, "txmux:{up}", "rate", 1000, 1, 1, 0)

    @property
    def _redis(self) -> RedisProtocol | None:
        return None if self._client is None else self._client.redis

    def _send(self, answered: Callable[[int, int], None], *words: str | int) -> None:
        source, redis, epoch = self._source, self._redis, self._epoch
        if source is None or redis is None:
            return

        def returned(reply: Any) -> None:
            if epoch == self._epoch:
                self._sent_at.popleft()
                granted, wait = map(int, reply)
                source.answered()
                if self._sent_at:
                    source.requested()
                answered(granted, wait)

        def failed(failure: Failure) -> None:
            if epoch != self._epoch:
                return
            why = reason(failure.value)
            if words[0] == "EVALSHA" and getattr(failure.value, "code", "") == "NOSCRIPT":
                self._down(why)  # an operator has cleared all scripts
                self._check()
            else:
                self._pause(why)

        if not self._sent_at:
            source.requested()
        self._sent_at.append(self.seconds())
        redis.execute(*words).addCallback(returned).addErrback(failed)
        if self._latency_timer is None:
            self._check_latency_in(_SLOW)

    def _check_latency_in(self, wait: float) -> None:
        self._latency_timer = self._reactor.callLater(
            wait, self._check_latency, self.seconds() + wait
        )

    def _check_latency(self, due: float) -> None:
        """Check whether the oldest answer is late, unless this process is late itself and may not have read it."""
        self._latency_timer = None
        if not self._sent_at:
            return
        now = self.seconds()
        late = self._sent_at[0] + _SLOW - now
        if now - due > _SLOW / 2:
            self._check_latency_in(_SLOW / 2)
        elif late > 0:
            self._check_latency_in(late)
        else:
            self._pause(f"no answer within {1000 * _SLOW:g} ms")

    def _pause(self, why: str) -> None:
        self._down(why)
        if self._redis is not None:
            self._again = self._reactor.callLater(self._wait, self._check)
            self._wait = min(2 * self._wait, _LONGEST)

    def ask(
        self, key: str, arguments: tuple[str | int, ...], answered: Callable[[int, float], None]
    ) -> bool:
        """Run the script, if that can be, and give `answered` what it returns, its second number in seconds; returns whether it can."""
        now = self.seconds()
        if math.floor(now) != self._second:
            self._second, self._questions = math.floor(now), 0
        self._questions += 1
        if self._questions > _MOST_QUESTIONS or not self.is_up:
            return False
        self._send(
            lambda granted, wait: answered(granted, wait / 1e6),
            *("EVALSHA", _SHA, 1, key, *arguments),
        )
        return True

    def stop(self) -> Deferred[Any]:
        client, self._client = self._client, None
        self._store = self._source = None
        self._down("")
        return succeed(None) if client is None else client.stop()
