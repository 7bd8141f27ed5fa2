"""A client of Redis that connects again whenever its connections are lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from txredisapi import RedisProtocol, SubscriberProtocol  # type: ignore[import-untyped]

from txmux.errors import MuxError, cause_of
from txmux.files import read_bytes
from txmux.rules.model.settings import Store

_PATIENCE = 5.0  # seconds to connect and to authenticate in
_SHORTEST, _LONGEST = 0.5, 15.0  # seconds between two attempts


class StoreError(MuxError):
    """Redis cannot be used."""


class _RedisFactory(Factory):
    """What txredisapi's protocols expect of a factory: they report to it that a password or a database is refused."""

    noisy = False
    isLazy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.problem = ""

    def buildProtocol(self, addr: object) -> Any:  # noqa: ARG002
        made = self._make()
        made.factory = self
        lost = made.connectionLost

        def connection_lost(why: Failure) -> None:
            self.problem = self.problem or _why_no_tls(why)
            lost(why)

        made.connectionLost = connection_lost
        return made

    def stopTrying(self) -> None:
        """Ignore that: `RedisConnection` decides whether it is tried again."""

    def connectionError(self, why: object) -> None:
        self.problem = str(why)


@attrs.define(eq=False, slots=False)
class RedisConnection:
    """Connects, and connects again: the first time at once, then after times that double, until a connection has lasted.

    Args:
        make: Makes the protocol, of txredisapi, from its keyword arguments.
        up: Called once the protocol can be used.
        down: Called with the reason once it cannot, or could not be made; not again while that lasts.
    """

    _reactor: Any
    _store: Store
    _password: Path | None
    _make: Callable[..., Any]
    _up: Callable[[], object]
    _down: Callable[[str], object]
    _wait = _SHORTEST
    _up_at = 0.0
    _is_reported = False
    _stopped = False
    _again: IDelayedCall | None = attrs.field(default=None, init=False)
    _trying: Deferred[Any] | None = attrs.field(default=None, init=False)
    protocol: Any = attrs.field(default=None, init=False)

    def start(self) -> None:
        self._again = None
        if not self._stopped:
            self._trying = Deferred.fromCoroutine(self._connect())
            self._trying.addErrback(self._failed)

    async def _connect(self) -> None:
        factory = _RedisFactory(self._protocol_of)
        endpoint = await self._endpoint()
        connecting = endpoint.connect(factory)
        connecting.addTimeout(_PATIENCE, self._reactor)
        protocol: Any = await connecting
        lost = protocol.whenDisconnected()
        ready = protocol.whenConnected()
        first: Deferred[Any] = Deferred(lambda _: protocol.transport.abortConnection())
        for one, is_up in ((ready, True), (lost, False)):
            one.addCallback(lambda _, is_up=is_up: None if first.called else first.callback(is_up))
        first.addTimeout(_PATIENCE, self._reactor)
        if not await first:
            raise StoreError(factory.problem or "it closes the connection")
        self.protocol, self._trying = protocol, None
        self._up_at, self._is_reported = self._reactor.seconds(), False
        protocol.whenDisconnected().addCallback(lambda _: self._lost())
        self._up()

    def _protocol_of(self) -> Any:
        store = self._store
        password = self._secret()
        return self._make(
            convertNumbers=False,
            password=password,
            username=store.user or None,
            dbid=store.database or None,
        )

    def _secret(self) -> str | None:
        if self._password is None:
            return None
        try:
            return read_bytes(self._password).decode().strip()
        except OSError as error:
            raise StoreError(f"cannot read '{self._password}': {error.strerror}") from None
        except UnicodeDecodeError:
            raise StoreError(f"'{self._password}' is not text") from None

    async def _endpoint(self) -> IStreamClientEndpoint:
        # Only a service that shares limits needs it, and it imports TLS.
        from twisted.internet.endpoints import (  # noqa: PLC0415
            HostnameEndpoint,
            UNIXClientEndpoint,
            wrapClientTLS,
        )

        store = self._store
        self._secret()  # what is wrong with it is reported before a connection is made
        if store.path is not None:
            at_path: IStreamClientEndpoint = UNIXClientEndpoint(self._reactor, str(store.path))
            return at_path
        there = HostnameEndpoint(self._reactor, store.host.encode("idna"), store.port)
        if not store.tls:
            plain: IStreamClientEndpoint = there
            return plain
        from twisted.internet.ssl import optionsForClientTLS  # noqa: PLC0415 - few have it

        safe: IStreamClientEndpoint = wrapClientTLS(optionsForClientTLS(store.host), there)
        return safe

    def _failed(self, failure: Failure) -> None:
        self._trying = None
        if self._stopped:
            return
        if not self._is_reported:
            self._is_reported = True
            self._down(cause_of(failure.value))
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST)
        # Not all machines come back in one moment.
        self._again = self._reactor.callLater(wait * random.uniform(0.8, 1.2), self.start)  # nosec B311  # noqa: S311 - not for secrets

    def _lost(self) -> None:
        self.protocol = None
        if not self._stopped:
            self._is_reported = True
            self._down("the connection is gone")
            # A Redis whose connection fails again and again is not queried for everything several times in a second.
            lasted = self._reactor.seconds() - self._up_at
            wait = _SHORTEST if lasted > _LONGEST else self._wait
            self._wait = min(2 * wait, _LONGEST)
            self._again = self._reactor.callLater(random.uniform(0, wait), self.start)  # nosec B311  # noqa: S311 - not for secrets

    def drop(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.abortConnection()

    def stop(self) -> Deferred[Any]:
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        waiting: list[Deferred[Any]] = []
        if self._trying is not None:
            self._trying.cancel()
        if self.protocol is not None:
            waiting.append(self.protocol.whenDisconnected())
            # It reads a reply a turn, of as many as have come.
            self.protocol.dataReceived = lambda *_: None
            self.protocol.transport.abortConnection()
            waiting += [deferLater(self._reactor, 0) for _ in range(2)]
        return gatherResults(waiting)


class RedisClient:
    """A connection to Redis, and a second one for a subscription, if a channel is given. If either is lost, both reconnect."""

    def __init__(
        self,
        reactor: Any,
        store: Store,
        password: Path | None,
        up: Callable[[], object],
        down: Callable[[str], object],
        *,
        patience: float | None = None,
        channel: str = "",
        on_message: Callable[[Any], object] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._up = up
        self._down = down
        self._channel = channel
        self._patience = patience or _PATIENCE
        self._busy: set[Deferred[Any]] = set()
        self._stopped = False
        self.redis: Any = None
        makers = [partial(RedisProtocol, replyTimeout=patience)]
        if channel:
            makers.append(partial(_Subscriber, on_message, replyTimeout=patience))
        self._connections = [
            RedisConnection(reactor, store, password, make, self._connected, self._lost)
            for make in makers
        ]

    def start(self) -> None:
        for one in self._connections:
            one.start()

    def _connected(self) -> None:
        if all(one.protocol is not None for one in self._connections):
            self.run(self._begin())

    async def _begin(self) -> None:
        first, *others = [one.protocol for one in self._connections]
        for one in others:
            subscribing = one.subscribe([self._channel])  # for which txredisapi has no time limit
            subscribing.addTimeout(self._patience, self._reactor, onTimeoutCancel=_no_answer)
            await subscribing
        self.redis = first
        self._up()

    def _lost(self, why: str) -> None:
        self.redis = None
        self._down(why)
        for one in self._connections:
            one.drop()

    async def ping_channel(self) -> None:
        for one in self._connections[1:]:
            await one.protocol.ping()

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something that asks Redis; if that fails, both connections are made again."""
        done = Deferred.fromCoroutine(work)
        self._busy.add(done)
        done.addErrback(self._failed)
        done.addBoth(lambda _: self._busy.discard(done))

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if not self._stopped:
            self._lost(cause_of(failure.value))

    def stop(self) -> Deferred[Any]:
        """Disconnect for good, and cancel running calls."""
        self._stopped = True
        for one in [*self._busy]:
            one.cancel()
        return gatherResults([one.stop() for one in self._connections])


class _Subscriber(SubscriberProtocol):  # type: ignore[misc]
    """Calls a function with each published message."""

    def __init__(self, on_message: Callable[[Any], object], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._on_message = on_message

    def messageReceived(self, pattern: object, channel: object, message: Any) -> None:  # noqa: ARG002
        self._on_message(message)


def _no_answer(_: object, seconds: float) -> NoReturn:
    raise StoreError(f"it did not answer SUBSCRIBE within {seconds:g} s")


def _why_no_tls(failure: Failure) -> str:
    """Say why there was no TLS, if that was it; by names, since few import OpenSSL."""
    problem: Any = failure.value
    if failure.check("service_identity.exceptions.VerificationError"):
        return "its certificate is for another name"
    if not failure.check("OpenSSL.SSL.Error") or not problem.args:
        return ""
    why = ", ".join(str(reason) for *_, reason in problem.args[0])
    if why == "certificate verify failed":
        why = "its certificate is not valid, or not of an authority that this machine trusts"
    return f"no TLS: {why}"
