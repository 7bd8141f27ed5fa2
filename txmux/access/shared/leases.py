"""Rates of sources that several machines share: each leases tokens for those that are busy.

Nobody waits for an answer. A source that makes less than half of its burst in the time in which that comes back is not asked about at all; for others some tokens
are leased ahead, and who comes while an answer is on its way is let in and told of with the next question. The buckets are in Redis as
the time at which each is full again (GCRA, the generic cell rate algorithm of ITU-T I.371), by Redis's own clock.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from txredisapi import RedisProtocol, ScriptDoesNotExist  # type: ignore[import-untyped]

from txmux.access.shared import held
from txmux.access.shared.held import Held
from txmux.access.shared.link import Link
from txmux.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import IDelayedCall

    from txmux.rules.model.store import Store

__all__ = ["Leases", "SharedRates"]

_SLOW = 0.02
"""Seconds after which an answer is of no use: by then many may have come whom nobody counted."""

_SHORTEST, _LONGEST = 1.0, 30.0
"""Seconds until a slow Redis is tried again."""

_MOST_QUESTIONS = 1000  # in a second
_MOST_TOKENS = 10
_WORTH, _GOOD = 0.1, 1.0
"""Seconds for which tokens are leased ahead, and in which they have to be used."""

_LONGEST_WHY = 200  # characters
_MOST_KEPT = 100_000
_MICROSECONDS = 1000  # a microsecond, in nanoseconds

_SCRIPT = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, want, spent = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + spent * interval
local granted = math.max(0, math.min(want, math.floor((now + burst * interval - full) / interval)))
full = full + granted * interval
if full > now then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
return {granted, math.max(0, math.ceil(full + interval - burst * interval - now))}
"""
"""Takes the interval of a token in microseconds, the burst, how many tokens are wanted, and how many were used without. Gives how many
are granted, and the microseconds until there is another one."""

_SHA = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (_SCRIPT, held.SCRIPT)
}


@attrs.define(eq=False)
class _Lease:
    """What is known of one busy source.

    Attributes:
        tokens: Connections that may be made.
        good_until: When tokens are not good any more.
        empty_until: When there may be another token.
        spent: Connections that were made without a token, and are yet to be told.
        is_asking: Whether an answer is on its way.
        seen: When it last came.
    """

    tokens: int = 0
    good_until: float = 0.0
    empty_until: float = 0.0
    spent: int = 0
    is_asking: bool = False
    seen: float = 0.0


class Leases:
    """The sources of one listener.

    Args:
        rates: Asks.
        listener: Its name.

    Attributes:
        at_other_machines: See `Held.at_other_machines`.
    """

    def __init__(self, rates: SharedRates, listener: str) -> None:
        self._rates = rates
        self._listener = listener
        self._leases: dict[int, _Lease] = {}
        self._recent: dict[int, int] = {}
        self._until = 0.0
        self._held = Held(rates, listener)
        self.at_other_machines = self._held.at_other_machines

    def take(self, source: int, used: int, interval: int, burst: int) -> bool:
        """Return whether a source may make a connection, which it may by the bucket of this machine.

        Args:
            source: See `txmux.access.per_source.source_of`.
            used: What it has used of its bucket here.
            interval: Nanoseconds for one connection.
            burst: How many there are in the bucket.
        """
        rates = self._rates
        if not rates.is_up:
            return True
        now = rates.seconds()
        if now >= self._until:
            self._begin(now, interval * burst / 1e9)
        lease = self._leases.get(source)
        if lease is None:
            mine = self._recent.get(source, 0)
            if 2 * max(used, mine) < burst or len(self._leases) >= _MOST_KEPT:
                if mine or len(self._recent) < _MOST_KEPT:
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

    def _begin(self, now: float, window: float) -> None:
        """Forget the sources that are not busy any more."""
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
        arguments = (max(1, interval // _MICROSECONDS), burst, ahead, spent)

        def answered(granted: int, wait: float) -> None:
            now = self._rates.seconds()
            lease.is_asking = False
            lease.spent -= spent
            # Who came meanwhile has had some of it.
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
        """Know nothing any more, since nobody answers."""
        self._held.forget()
        self._leases.clear()
        self._recent.clear()


class SharedRates:
    """Asks Redis, as long as it answers soon.

    Args:
        reactor: Connects, and has timers.
        seconds: Tells the time.

    Attributes:
        is_up: Whether there is somebody to ask.
        seconds: As above.
        later: Calls something after some seconds.
    """

    _log = Logger()

    def __init__(self, reactor: Any, seconds: Callable[[], float]) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self.later = reactor.callLater
        self.is_up = False
        self._listeners: dict[str, Leases] = {}
        self._place: tuple[Store | None, Path | None] = (None, None)
        self._link: Link | None = None
        self._redis: Any = None
        self._asked: deque[float] = deque()
        self._epoch = 0
        self._looking: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._wait = _SHORTEST
        self._is_told = False
        self._second = 0
        self._questions = 0

    def of(self, listener: str) -> Leases:
        """Return what is shared of a listener."""
        if listener not in self._listeners:
            self._listeners[listener] = Leases(self, listener)
        return self._listeners[listener]

    def use(self, store: Store | None, password: Path | None) -> None:
        """Ask this Redis, or nobody."""
        if (store, password) == self._place:
            return
        self.stop()
        self._place = (store, password)
        if store is not None:
            made = Link(self._reactor, store, password, RedisProtocol, self._connected, self._gone)
            self._link = made
            self._reactor.callWhenRunning(made.start)

    @property
    def is_wanted(self) -> bool:
        return self._link is not None

    def _connected(self, redis: Any) -> None:
        self._redis = redis
        self._try()

    def _gone(self, _: str) -> None:
        # That it is gone is told by the one who shares bans.
        self._redis = None
        self._down()

    def _down(self) -> None:
        self.is_up = False
        self._epoch += 1
        self._asked.clear()
        for call in (self._looking, self._again):
            if call is not None:
                call.cancel()
        self._looking = self._again = None
        for one in self._listeners.values():
            one.forget()

    def _try(self) -> None:
        """Load the script, and see whether the answer comes in time."""
        self._again = None
        epoch = self._epoch

        def loaded(_: object) -> None:
            if epoch == self._epoch:
                self._asked.popleft()
                self.is_up = True
                self._wait = _SHORTEST
                if self._is_told:
                    self._is_told = False
                    self._log.info("{store} answers in time again", store=self._text())

        self._redis.script_load(held.SCRIPT).addErrback(self._refused, epoch)
        loading: Deferred[Any] = self._redis.script_load(_SCRIPT)
        loading.addCallbacks(loaded, lambda failure: self._refused(failure, epoch))
        self._note()

    def _text(self) -> str:
        return self._place[0].text if self._place[0] else "Redis"

    def _note(self) -> None:
        """Record that something was asked just now."""
        self._asked.append(self.seconds())
        if self._looking is None:
            self._look_in(_SLOW)

    def _look_in(self, wait: float) -> None:
        self._looking = self._reactor.callLater(wait, self._look, self.seconds() + wait)

    def _look(self, due: float) -> None:
        """See whether the oldest answer is late; not if this process is late itself, and the answer may be there."""
        self._looking = None
        if not self._asked:
            return
        now = self.seconds()
        late = self._asked[0] + _SLOW - now
        if now - due > _SLOW / 2:
            self._look_in(_SLOW / 2)
        elif late > 0:
            self._look_in(late)
        else:
            self._pause("it does not answer in 20 ms")

    def _refused(self, failure: Any, epoch: int) -> None:
        if epoch == self._epoch:
            self._pause(failure.getErrorMessage() or type(failure.value).__name__)

    def _pause(self, why: str) -> None:
        self._down()
        if self._redis is None:
            return
        if not self._is_told:
            self._is_told = True
            told = "{store}: {why}; limits are this machine's own until it does"
            self._log.warn(told, store=self._text(), why=printable(why, _LONGEST_WHY))
        self._again = self._reactor.callLater(self._wait, self._try)
        self._wait = min(2 * self._wait, _LONGEST)

    def ask(
        self,
        key: str,
        arguments: tuple[object, ...],
        answered: Callable[[int, float], None],
        script: str = _SCRIPT,
    ) -> bool:
        """Ask something, and tell whether that could be.

        Args:
            key: Of the source.
            arguments: See the script.
            answered: Is given what the script gives, its second number in seconds.
            script: `_SCRIPT`, or that of `held`.
        """
        now = self.seconds()
        if math.floor(now) != self._second:
            self._second, self._questions = math.floor(now), 0
        self._questions += 1
        if self._questions > _MOST_QUESTIONS or not self.is_up:
            return False
        epoch = self._epoch

        def told(found: Any) -> None:
            if epoch == self._epoch:
                self._asked.popleft()
                granted, wait = map(int, found)
                answered(granted, wait / 1e6)

        def failed(failure: Any) -> None:
            if failure.check(ScriptDoesNotExist) and epoch == self._epoch:
                self._down()  # somebody has cleared all scripts
                self._try()
            else:
                self._refused(failure, epoch)

        asking: Deferred[Any] = self._redis.evalsha(_SHA[script], [key], [*map(str, arguments)])
        asking.addCallbacks(told, failed)
        asking.addErrback(lambda failure: self._refused(failure, epoch))
        self._note()
        return True

    def stop(self) -> Deferred[Any]:
        """Ask nobody any more."""
        link, self._link, self._redis = self._link, None, None
        self._place = (None, None)
        self._down()
        return succeed(None) if link is None else link.stop()
