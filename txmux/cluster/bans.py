"""Bans that several machines share: each has all of them, and decides by itself.

A ban is a key with its time to live, ``txmux:ban:NETWORK``, and a message to all who listen, ``txmux:bans``. A ban that was taken back
leaves a key that says so, for a machine that was away meanwhile. So what a Redis without its data does not know is written again.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from txredisapi import RedisProtocol, SubscriberProtocol  # type: ignore[import-untyped]

from txmux.cluster.link import Link
from txmux.jsontext import MISSHAPEN, parse_json, time_of
from txmux.networks.bans import Ban, banned_network, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from twisted.python.failure import Failure

    from txmux.live.banning import Banning
    from txmux.networks.bans import Bans, Change
    from txmux.rules.model import IPNetwork
    from txmux.rules.model.store import Store


__all__ = ["SharedBans"]

_CHANNEL = "txmux:bans"
_PREFIX = "txmux:ban:"
_REMEMBERED = 30 * 86400
"""Seconds in which it is known that a ban without an end was taken back."""

_AT_ONCE = 500
_PINGS, _PATIENCE = 10.0, 5.0
"""Seconds between two questions whether it is there, and in which it has to answer."""


class SharedBans:
    """Tells other machines of bans, and hears of theirs.

    Args:
        reactor: Connects, and tells the time.
        store: Where.
        password: The file with the password.
        control: Has the bans of this machine.
        now: Tells the time of day, in seconds since 1970.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: Store,
        password: Path | None,
        control: Banning,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._control = control
        self._now = now
        self._speaking: Any = None
        self._missed: dict[IPNetwork, dict[str, Any]] = {}
        self._is_told = False
        self._busy: set[Deferred[Any]] = set()
        self._stopped = False
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor
        self._links = (
            Link(reactor, store, password, _speaker, self._can_speak, self._is_away),
            Link(reactor, store, password, self._listener, self._can_listen, self._is_away),
        )

    def start(self) -> None:
        """Connect."""
        for link in self._links:
            link.start()
        self._pinging.start(_PINGS, now=False)

    def _ping(self) -> None:
        """Notice a Redis that takes what it is told and answers nothing."""
        if self._speaking is not None:
            self._do(_pinged(self._speaking))

    def stop(self) -> Deferred[Any]:
        """Share no more."""
        self._stopped = True
        if self._pinging.running:
            self._pinging.stop()
        for one in [*self._busy]:
            one.cancel()
        return gatherResults([link.stop() for link in self._links])

    def _is_away(self, why: str) -> None:
        self._speaking = None
        if not self._is_told:
            self._is_told = True
            told = "{store}: {why}; bans and limits are this machine's own until it is back"
            self._log.error(told, store=self._store.text, why=why)
        for link in self._links:
            link.drop()  # what was told meanwhile is caught up with after the next connection

    # What this machine tells.

    def tell(self, network: IPNetwork, ban: Ban | None) -> None:
        """Tell the others of a change here; while nobody can be told, it is kept."""
        record = _record(network, ban, self._now())
        if self._speaking is None:
            self._missed[network] = record
        else:
            self._do(self._write(self._speaking, record))

    async def _write(self, redis: Any, record: dict[str, Any], *, only_new: bool = False) -> None:
        until = record["until"]
        left = _REMEMBERED if until is None else max(1, math.ceil(until - self._now()))
        expire = None if record["ban"] and until is None else left
        key, text = _PREFIX + record["network"], json.dumps(record)
        await redis.set(key, text, expire=expire, only_if_not_exists=only_new)
        await redis.publish(_CHANNEL, text)

    # What others tell.

    def _listener(self, **arguments: Any) -> Any:
        return _Listener(self._heard, **arguments)

    def _heard(self, text: Any) -> None:
        changes = _changes([text], self._control.kept_bans())
        if changes:
            self._do(self._control.have_bans(changes))

    def _can_speak(self, redis: Any) -> None:
        self._speaking = redis
        missed, self._missed = self._missed, {}

        async def speak() -> None:
            await self._catch_up(redis, missed)
            self._is_told = False
            self._log.info("{store}: bans are shared", store=self._store.text)

        self._do(speak())

    def _can_listen(self, listener: Any) -> None:
        async def listen() -> None:
            await listener.subscribe([_CHANNEL])
            # What was told while nobody listened here.
            if self._speaking is not None:
                await self._catch_up(self._speaking, {})

        self._do(listen())

    async def _catch_up(self, redis: Any, missed: dict[IPNetwork, dict[str, Any]]) -> None:
        for record in missed.values():
            await self._write(redis, record)
        known: set[IPNetwork] = set()
        cursor: Any = 0
        while True:
            cursor, keys = await redis.scan(cursor, pattern=f"{_PREFIX}*", count=_AT_ONCE)
            texts = await redis.mget(keys) if keys else []
            records = [record for record in map(_read, texts) if record is not None]
            known.update(record["network"] for record in records)
            changes = _changes(texts, self._control.kept_bans())
            if changes:
                await self._control.have_bans(changes)
            if not int(cursor):
                break
        for ban in self._control.bans():
            if ban.network not in known:
                await self._write(redis, _record(ban.network, ban, ban.since), only_new=True)

    def _do(self, work: Any) -> None:
        done = Deferred.fromCoroutine(work)
        self._busy.add(done)
        done.addErrback(self._broken)
        done.addBoth(lambda _: self._busy.discard(done))

    def _broken(self, failure: Failure) -> None:
        if not self._stopped:
            self._is_away(failure.getErrorMessage() or type(failure.value).__name__)


def _speaker(**arguments: Any) -> Any:
    return RedisProtocol(replyTimeout=_PATIENCE, **arguments)


async def _pinged(redis: Any) -> None:
    await redis.ping()


class _Listener(SubscriberProtocol):  # type: ignore[misc]
    """Hears what is published."""

    def __init__(self, heard: Callable[[Any], object], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._heard = heard

    def messageReceived(self, pattern: object, channel: object, message: Any) -> None:  # noqa: ARG002
        """Pass it on."""
        self._heard(message)


def _record(network: IPNetwork, ban: Ban | None, at: float) -> dict[str, Any]:
    """Give what is written of a network: its ban, or that there is none any more."""
    if ban is None:
        return {"network": written(network), "ban": False, "since": at, "until": None}
    return {**ban.as_json(), "ban": True}


def _read(text: Any) -> dict[str, Any] | None:
    """Read what `_record` gave; ``None`` for anything else."""
    try:
        found = parse_json(text)
        network = banned_network(found["network"])
        since = time_of(found["since"])
        ban = Ban.read(found) if found["ban"] else None
    # One record that somebody else has written must not end the sharing of all others.
    except MISSHAPEN:
        return None
    return {"network": network, "since": since, "ban": ban}


def _changes(texts: Iterable[Any], bans: Bans) -> list[Change]:
    """Give what is new in records: of the same network, the later one counts."""
    changes: list[Change] = []
    for record in map(_read, texts):
        if record is None or not record["network"].prefixlen:
            continue
        known, ban = bans.get(record["network"]), record["ban"]
        if known is None and ban is None:
            continue
        if known is None or record["since"] > known.since:
            changes.append((record["network"], ban))
    return changes
