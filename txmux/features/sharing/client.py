"""A Redis client that reconnects."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txmux.classes import define, frozen
from txmux.errors import cause_of
from txmux.features.sharing.redis import RedisError, RedisProtocol, reason
from txmux.features.sharing.store import Store
from txmux.net.secrets import read_text, secret_of

STEADY = 3.0
"""Seconds for which Redis has to fail, or to answer, until that counts; less than the timeout of a silent connection.

With those between two questions, these are fewer than five: so soon is one that hangs noticed."""

_SHORTEST, _LONGEST = 0.5, 15.0  # seconds between two attempts

_Words: TypeAlias = "tuple[str | float, ...]"
_WRITE: _Words = ("PEXPIRE", "txmux:up", 0)
"""A write without effect, which a replica refuses, as does a server that is loading its data."""


@frozen
class SharingTimes:
    """Seconds."""

    pings: float = 1.0  # between two questions, even if there is nothing to ask
    patience: float = 5.0  # to connect, and for each answer
    compared: float = 300.0  # between two comparisons of all bans


SHARING_TIMES = SharingTimes()


@define(eq=False, slots=False)
class RedisConnection:
    """Connects, and reconnects: at once, then after delays that double until a connection has lasted.

    Args:
        up: Called once commands can be sent.
        down: Called with the reason for each attempt that has failed, and when a connection is lost.
        check: The command by which a connection is checked.
        first: A command at the start of each connection.
        on_message: See `RedisProtocol`.

    Attributes:
        secret: The password of the present connection; empty without one.
    """

    _reactor: Any
    _store: Store
    _up: Callable[[], object]
    _down: Callable[[str], object]
    _check: _Words = _WRITE
    _first: _Words = ()
    _on_message: Callable[[bytes], object] | None = None
    _times: SharingTimes = SHARING_TIMES
    _wait = _SHORTEST
    _up_at = 0.0
    _stopped = False
    retry: IDelayedCall | None = attrs.field(default=None, init=False)
    _trying: Deferred[Any] | None = attrs.field(default=None, init=False)
    made: RedisProtocol | None = attrs.field(default=None, init=False)
    protocol: RedisProtocol | None = attrs.field(default=None, init=False)
    secret: str = attrs.field(default="", init=False)

    def start(self) -> None:
        if self._stopped:
            return  # before the reactor was running
        self.retry = None
        self._trying = Deferred.fromCoroutine(self._connect())
        self._trying.addErrback(self._failed)

    async def _connect(self) -> None:
        path = self._store.password
        self.secret = "" if path is None else await secret_of(path, read_text)
        factory = Factory.forProtocol(self._protocol)
        factory.noisy = False
        connecting: Any = self._endpoint().connect(factory)
        connecting.addTimeout(self._times.patience, self._reactor)
        protocol: RedisProtocol = await connecting
        self.made = protocol
        if self._store.path is None:
            # Otherwise a question would wait until the one before is acknowledged.
            protocol.transport.setTcpNoDelay(True)
        protocol.lost.addCallback(self._lost)
        if self.secret:
            await protocol.execute("AUTH", *filter(None, [self._store.user]), self.secret)
        if self._store.database:
            await protocol.execute("SELECT", self._store.database)
        checked = await protocol.execute(*self._check)
        if self._check == _WRITE and not isinstance(checked, int):
            raise RedisError("it does not answer as Redis does")
        if self._first:
            await protocol.execute(*self._first)
        protocol.check_each(self._times.pings, *self._check)
        self.protocol, self._trying = protocol, None
        self._up_at = self._reactor.seconds()
        self._up()

    def _protocol(self) -> RedisProtocol:
        return RedisProtocol(self._reactor, self._times.patience, self._on_message)

    def _endpoint(self) -> Any:
        # Only a service that shares limits needs it, and it imports TLS.
        from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS  # noqa: PLC0415

        store = self._store
        if store.path is not None:
            return UNIXClientEndpoint(self._reactor, str(store.path))
        endpoint = HostnameEndpoint(self._reactor, store.host.encode("idna"), store.port)
        if not store.tls:
            return endpoint
        from txmux.net.tls.verification import ClientTLS  # noqa: PLC0415 - few have it

        return wrapClientTLS(ClientTLS(store.host), endpoint)

    def _failed(self, failure: Failure) -> None:
        self._trying = None
        if self._stopped:
            return
        why = cause_of(failure.value)
        if self.made is not None:
            self.made.end(why)
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST)
        # Spread out, so that machines do not all reconnect at the same moment.
        self.retry = self._reactor.callLater(wait * random.uniform(0.8, 1.2), self.start)  # nosec B311  # noqa: S311 - not for secrets
        self._down(why)

    def _lost(self, why: str) -> None:
        self.made = None
        if self.protocol is None or self._stopped:
            return
        self.protocol = None
        # Otherwise a connection that fails repeatedly would load everything several times a second.
        lasted = self._reactor.seconds() - self._up_at
        wait = _SHORTEST if lasted > _LONGEST else self._wait
        self._wait = min(2 * wait, _LONGEST)
        self.retry = self._reactor.callLater(random.uniform(0, wait), self.start)  # nosec B311  # noqa: S311 - not for secrets
        self._down(why)

    def drop(self, why: str) -> None:
        if self.protocol is not None:
            self.protocol.end(why)

    def stop(self) -> Deferred[Any]:
        self._stopped = True
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        if self._trying is not None:
            self._trying.cancel()
        made, lost = self.made, Deferred[Any]()
        if made is None:
            lost.callback(None)
            return lost
        made.lost.addBoth(lambda _: lost.callback(None))
        made.end("the service is shutting down")
        return lost


class RedisClient:
    """A connection to Redis, and a second one for a subscription, if a channel is given. If either is lost, both reconnect.

    Args:
        up: Called once `redis` can be used.
        down: Called with the reason once it cannot, and again for each attempt that has failed.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        up: Callable[[], object],
        down: Callable[[str], object],
        *,
        times: SharingTimes = SHARING_TIMES,
        channel: str = "",
        on_message: Callable[[bytes], object] | None = None,
    ) -> None:
        self._up = up
        self._down = down
        self.busy: set[Deferred[Any]] = set()
        self._stopped = False
        self.redis: RedisProtocol | None = None
        place = (reactor, store, self._connected, self._lost)
        self.connections = [RedisConnection(*place, times=times)]
        if channel:
            subscribing = ("SUBSCRIBE", channel)
            self.connections.append(
                RedisConnection(*place, ("PING",), subscribing, on_message, times)
            )

    @property
    def secret(self) -> str:
        return self.connections[0].secret

    def start(self) -> None:
        for connection in self.connections:
            connection.start()

    def _connected(self) -> None:
        if all(connection.protocol is not None for connection in self.connections):
            self.redis = self.connections[0].protocol
            self._up()

    def _lost(self, why: str) -> None:
        self.redis = None
        for connection in self.connections:
            connection.drop(why)
        self._down(why)

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine that uses Redis; if it fails, reconnect."""
        done = Deferred.fromCoroutine(work)
        self.busy.add(done)
        done.addErrback(self._failed)
        done.addBoth(lambda _: self.busy.discard(done))

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if not self._stopped and self.redis is not None:
            self._lost(reason(failure.value))

    def pause(self) -> None:
        """Receive no messages until `resume`."""
        if (subscriber := self.connections[-1].protocol) is not None:
            subscriber.pause()

    def resume(self) -> None:
        if (subscriber := self.connections[-1].protocol) is not None:
            subscriber.resume()

    def stop(self) -> Deferred[Any]:
        """Disconnect for good, and cancel running calls."""
        self._stopped = True
        for request in [*self.busy]:
            request.cancel()
        return gatherResults([connection.stop() for connection in self.connections])
