"""Bans shared between machines: each machine has all of them, and decides by itself.

A ban is a key with its time to live, ``txmux:ban:NETWORK``, and a message to all who listen, ``txmux:bans``. A ban that was taken back
leaves a key that says so, for a machine that was away meanwhile. All times in them are Redis's own, which a machine compares with its
monotonic clock: of the same network the later record counts, however far the clocks of machines are apart, and also if one is set. What
a Redis without its data does not know is written again.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.access.bans import (
    FULL,
    LONGEST_REASON,
    Ban,
    Change,
    ServiceBans,
    banned_network,
    written,
)
from txmux.access.per_source import PerSource
from txmux.classes import define
from txmux.client.parts import ServicePart
from txmux.control.attention import problems
from txmux.errors import printable
from txmux.features.sharing.client import (
    SHARING_TIMES,
    STEADY,
    RedisClient,
    RedisError,
    RedisProtocol,
    SharingTimes,
)
from txmux.features.sharing.exchange import SharedSources
from txmux.features.sharing.rows import BANS_WITHOUT_ROOM
from txmux.features.sharing.store import Store, is_shared, store_of
from txmux.rules.model import IPNetwork, Rules
from txmux.rules.model.files import other_author
from txmux.telemetry.attention import AttentionItem
from txmux.telemetry.sources import Source, SourceState
from txmux.wire.jsontext import MISSHAPEN, parse_json, time_of

_CHANNEL = "txmux:bans"
_PREFIX = "txmux:ban:"
_REMEMBERED = 30 * 86400  # seconds for which a lifted ban is remembered
_AT_ONCE = 200
_LONGEST_RECORD = 4096  # bytes
_GATHERED = 0.02
"""Seconds for which received changes are collected: under attack there are many."""

_MOST_GATHERED, _MOST_RECEIVED = 1000, 10
_MOST_NETWORKS = 120_000
"""Networks of which the last change is remembered; each machine has at most 100,000 bans."""

_SURE = 1.0
"""Seconds by which the end of a ban may differ between machines: an answer is on its way for some time."""

_AGED = 1e-6  # the least age of a record that does not have to be later than all others
_WRITE = """\
local time = redis.call('TIME')
local now, age = time[1] + time[2] / 1000000, tonumber(ARGV[1])
local known = redis.call('MGET', KEYS[1])[1]
local at, before = now - age, known and tonumber(string.match(known, '"since": ([%d.]+)')) or 0
if before >= at then
  if age > 0 then return known end
  at = before + 0.000001
end
local till = ARGV[2] == '' and 'null' or string.format('%.6f', now + ARGV[2])
local record = string.format('{"since": %.6f, "until": %s, ', at, till) .. ARGV[4]
redis.call('SET', KEYS[1], record)
if ARGV[3] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
redis.call('PUBLISH', ARGV[5], record)
return record
"""
"""Takes how many seconds ago a network was banned or unbanned, 0 for just now; in how many seconds that is over; the milliseconds for which
it is kept; the rest of the record; and the channel. Returns the record that holds: an older one is not written."""

_READ = """\
local found, known = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3]), {}
for _, record in ipairs(#found[2] > 0 and redis.call('MGET', unpack(found[2])) or {}) do
  if record and #record <= tonumber(ARGV[4]) then known[#known + 1] = record end
end
return {found[1], table.concat(known, '\\n')}
"""
"""Takes and gives a cursor, with some of the records in one text, which a client reads much faster than many; those that are too long are
left out."""


@define(eq=False)
class _UnconfirmedChange:
    """A change here that Redis has not confirmed yet, and records of its network that came meanwhile."""

    ban: Ban | None
    at: float
    received: list[Any] = attrs.field(factory=list)


_COMPARE = "compare bans with Redis"


class SharedBans:
    """Publishes bans to other machines, and applies theirs."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: Store,
        bans: ServiceBans,
        now: Callable[[], float] = time.monotonic,
        times: SharingTimes = SHARING_TIMES,
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._bans = bans
        self._now = now
        self._times = times
        self._state: Literal["complete", "reading", "lost"] = "reading"
        self._ahead = 0.0  # of this machine's monotonic clock, to that of Redis
        self.latest: dict[IPNetwork, float] = {}
        self.unconfirmed: dict[IPNetwork, _UnconfirmedChange] = {}
        self._received: list[Any] = []
        self._gathering: IDelayedCall | None = None
        self._compared_at = reactor.seconds()
        self._is_asking = self._is_comparing = self._is_merging = False
        self._was_full = self._was_complete = False
        effect = "bans of other machines may be missing here"
        self.source = Source(
            "bans", store.text, effect, reactor.seconds, steady=STEADY, overdue=STEADY
        )
        self._left_out: set[IPNetwork] = set()
        self._connection_check = LoopingCall(bans.recurring.run, _COMPARE, self.check_connection)
        self._connection_check.clock = reactor
        up, down, receive = self._can_share, self.connection_failed, self.receive
        self.client = RedisClient(
            reactor, store, up, down, times=times, channel=_CHANNEL, on_message=receive
        )

    def start(self) -> None:
        self.source.requested()
        self.client.start()
        self._connection_check.start(self._times.pings, now=False)

    def stop(self) -> Deferred[Any]:
        if self._connection_check.running:
            self._connection_check.stop()
        self._bans.recurring.forget(_COMPARE)
        self._stop_gathering()
        return self.client.stop()

    # Whether Redis is there.

    def _can_share(self) -> None:
        self._state = "reading"
        if self.client.redis is not None:
            self.client.run(self.share(self.client.redis))

    async def share(self, redis: RedisProtocol) -> None:
        await self._ask_time(redis)
        await self.compare(redis)
        self._state = "complete"
        self.source.answered()
        if not self._was_complete:
            self._was_complete = True
            count = len(self._bans)
            self._log.info("{store}: bans are shared: {count}", store=self._store.text, count=count)

    def connection_failed(self, why: str) -> None:
        self._state = "lost"
        self._stop_gathering()
        self.source.failed(why)
        self.source.requested()  # until all bans are here

    def check_connection(self) -> None:
        """Learn Redis's time, and compare all bans now and then."""
        client = self.client
        if client.redis is not None and self._state == "complete" and not self._is_asking:
            client.run(self._ask_time(client.redis))
            if self._reactor.seconds() - self._compared_at >= self._times.compared:
                client.run(self.compare(client.redis))
        for problem in self.troubles() if not self._was_full else ():
            self._log.warn("{problem}", problem=problem)
        self._was_full = bool(self._left_out)

    @property
    def state(self) -> Literal["complete", "partial", "reading", "lost"]:
        return "partial" if self._state == "complete" and self._left_out else self._state

    def troubles(self) -> list[str]:
        text = f"bans of other machines that do not apply here: {len(self._left_out)}"
        return [f"{self._store.text}: {text}; {FULL}"] if self._left_out else []

    async def _ask_time(self, redis: RedisProtocol) -> None:
        before = self._now()
        if self._state == "complete":
            self.source.requested()
        self._is_asking = True
        try:
            seconds, microseconds = await redis.execute("TIME")
        finally:
            self._is_asking = False
        if self._state == "complete":
            self.source.answered()
        # An answer that this process read late gives no precise time.
        after = self._now()
        if 0 <= after - before < _SURE:
            self._ahead = (before + after) / 2 - int(seconds) - int(microseconds) / 1e6

    # Changes that this machine publishes.

    def announce(self, network: IPNetwork, ban: Ban | None) -> None:
        """Publish a change made here, now or as soon as Redis is back."""
        before = self.unconfirmed.get(network)
        received = [] if before is None else before.received
        self.unconfirmed[network] = unconfirmed = _UnconfirmedChange(
            ban, self._reactor.seconds(), received
        )
        if self.client.redis is not None:
            self.client.run(self._publish_change(self.client.redis, network, unconfirmed, 0.0))

    async def _publish_change(
        self, redis: RedisProtocol, network: IPNetwork, unconfirmed: _UnconfirmedChange, age: float
    ) -> None:
        record = await self._write(redis, network, unconfirmed.ban, age)
        if self.unconfirmed.get(network) is unconfirmed:  # and nothing was changed meanwhile
            del self.unconfirmed[network]
            await self._have([record, *unconfirmed.received])

    async def _write(
        self, redis: RedisProtocol, network: IPNetwork, ban: Ban | None, age: float
    ) -> Any:
        record: dict[str, Any] = {"network": written(network), "ban": ban is not None}
        left: float | str = ""
        expiry: float | str = "" if ban is not None else 1000 * _REMEMBERED
        if ban is not None:
            record["reason"] = ban.reason
            if ban.until != math.inf:
                left = max(_SURE, ban.until - self._now())
                expiry = math.ceil(1000 * left)
        arguments = [f"{age:.6f}", left, expiry, json.dumps(record).removeprefix("{"), _CHANNEL]
        return await redis.execute("EVAL", _WRITE, 1, _PREFIX + written(network), *arguments)

    # Changes that other machines publish.

    def receive(self, text: bytes) -> None:
        if len(text) > _LONGEST_RECORD:
            return
        self._received.append(text)
        if len(self._received) >= _MOST_GATHERED:
            self.client.pause()
        if self._gathering is None and not self._is_merging:
            self._gathering = self._reactor.callLater(
                _GATHERED, lambda: self.client.run(self._take_in())
            )

    async def _take_in(self) -> None:
        self._gathering = None
        self._is_merging = True
        self.client.pause()
        try:
            while self._received:
                received, self._received = self._received, []
                await self._have(received)
        finally:
            self._is_merging = False
            self.client.resume()

    async def _have(self, texts: Iterable[Any]) -> None:
        self._left_out.update(await self._bans.merge(self.read_changes(texts)))

    def _stop_gathering(self) -> None:
        self._received.clear()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    async def compare(self, redis: RedisProtocol) -> None:
        """Publish pending changes, apply all bans of Redis, and write those that it lacks."""
        if self._is_comparing:
            raise RedisError("it has not sent all bans by the time of the next comparison")
        self._is_comparing = True
        try:
            await self._compare_all(redis)
        finally:
            self._is_comparing = False

    async def _compare_all(self, redis: RedisProtocol) -> None:
        self._compared_at = seconds = self._reactor.seconds()
        for network, unconfirmed in [*self.unconfirmed.items()]:
            await self._publish_change(
                redis, network, unconfirmed, max(_AGED, seconds - unconfirmed.at)
            )
        shared: set[IPNetwork] = set()
        left_out: set[IPNetwork] = set()
        before = {*self._left_out}
        cursor: Any = 0
        while True:
            words = (cursor, f"{_PREFIX}*", _AT_ONCE, _LONGEST_RECORD)
            cursor, rows = await redis.execute("EVAL", _READ, 0, *words)
            left_out.update(await self._bans.merge(self.read_changes(rows.split(b"\n"), shared)))
            if cursor == b"0":
                break
        # Bans received meanwhile may not be in the answer.
        self._left_out = left_out | (self._left_out - before)
        missing = [ban for ban in self._bans.current() if ban.network not in shared]
        for first in range(0, len(missing), _AT_ONCE):
            some = missing[first : first + _AT_ONCE]
            writing = [self._write(redis, ban.network, ban, self._age(ban)) for ban in some]
            await gatherResults(
                [Deferred.fromCoroutine(script) for script in writing], consumeErrors=True
            )
        self.latest = {
            network: at
            for network, at in self.latest.items()
            if network in shared or self._bans.get(network)
        }

    def _age(self, ban: Ban) -> float:
        return max(_AGED, self._now() - self._ahead - self._changed_at(ban.network))

    def _changed_at(self, network: IPNetwork) -> float:
        """Return the time of the last change of a network, by the clock of Redis; for older bans an estimate."""
        at, ban = self.latest.get(network), self._bans.get(network)
        return at if at is not None else 0.0 if ban is None else ban.since - self._ahead - _SURE

    def read_changes(
        self, texts: Iterable[Any], seen: set[IPNetwork] | None = None
    ) -> list[Change]:
        """Return the new records: of the same network, the later one counts. `seen` gets the networks whose latest record Redis has."""
        bans: dict[IPNetwork, Ban | None] = {}
        for text in texts:
            record = _read(text)
            if record is None:
                continue
            network, at, ban = record
            if (unconfirmed := self.unconfirmed.get(network)) is not None:
                unconfirmed.received = [*unconfirmed.received[-_MOST_RECEIVED:], text]
            elif at >= self._changed_at(network) and self._has_room(network):
                self.latest[network] = at
                if ban is not None:
                    since, until = ban.since + self._ahead, ban.until + self._ahead
                    ban = attrs.evolve(ban, since=since, until=until)
                bans[network] = ban
                if seen is not None:
                    seen.add(network)
        return [
            change for change in bans.items() if not _is_like(change[1], self._bans.get(change[0]))
        ]

    def _has_room(self, network: IPNetwork) -> bool:
        is_known = network in self.latest or self._bans.get(network) is not None
        return is_known or len(self.latest) < _MOST_NETWORKS


def _read(text: Any) -> tuple[IPNetwork, float, Ban | None] | None:
    """Read a record: of which network, when it was published, by the clock of Redis, and the ban, unless it was lifted."""
    try:
        fields = parse_json(text)
        network, at, ban = banned_network(fields["network"]), time_of(fields["since"]), None
        if fields["ban"]:
            until = fields.get("until")
            reason = printable(str(fields.get("reason", "")), LONGEST_REASON)
            ban = Ban(network, at, math.inf if until is None else time_of(until), reason)
    # An unreadable record must not end the sharing of the others.
    except MISSHAPEN:
        return None
    return (network, at, ban) if network.prefixlen else None


def _is_like(ban: Ban | None, other: Ban | None) -> bool:
    """Return whether two bans of a network differ in nothing that matters."""
    if ban is None or other is None:
        return ban is other
    is_until = ban.until == other.until or abs(ban.until - other.until) < _SURE
    return is_until and ban.reason == other.reason


class Sharing(ServicePart):
    """Shares by the Redis of the rules: bans, of which an embedded service has none, and limits of sources."""

    def __init__(
        self,
        reactor: Any,
        bans: ServiceBans | None,
        sources: Callable[[], Mapping[str, PerSource | None]] = dict,
    ) -> None:
        self._reactor = reactor
        self._service_bans = bans
        self._sources = sources
        self._store: Store | None = None
        self._bans: SharedBans | None = None
        self.limits: SharedSources | None = None

    @property
    def _shared(self) -> list[SharedBans | SharedSources]:
        return [shared for shared in (self._bans, self.limits) if shared is not None]

    def shared_bans(self, sources: Sequence[SourceState]) -> str | None:
        state = None if self._bans is None else self._bans.state
        return "lost" if state == "complete" and not is_shared(sources) else state

    def troubles(self) -> Iterator[AttentionItem]:
        if self._bans is not None:
            yield from problems(BANS_WITHOUT_ROOM, self._bans.troubles())

    def sources(self) -> Iterable[Source]:
        return [shared.source for shared in self._shared]

    def commit(self, rules: Rules) -> None:
        store = store_of(rules.settings)
        if store != self._store:
            self._follow(store)
        if self.limits is not None:
            # At another machine, a listener of the operator may have the name that a user has chosen here.
            authors = rules.files.authors
            self.limits.names = {
                its.name: f"{its.name} of user {author}"
                for its in rules.listeners
                if (author := other_author(authors, rules.unit_of(its.section))) is not None
            }

    def _follow(self, store: Store | None) -> None:
        self.stop_following()
        self._store = store
        if store is None:
            return
        self.limits = SharedSources(self._reactor, store, self._sources)
        if self._service_bans is not None:
            self._bans = SharedBans(self._reactor, store, self._service_bans)
            self._service_bans.publish = self._bans.announce
        for shared in self._shared:
            shared.start()

    def stop_following(self) -> Deferred[Any]:
        stopping = [shared.stop() for shared in self._shared]
        self._bans = self.limits = self._store = None
        if self._service_bans is not None:
            self._service_bans.publish = None
        return gatherResults(stopping)

    stop = stop_following
