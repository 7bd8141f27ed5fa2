"""A connection to Redis that is made again whenever it is gone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from txmux.errors import MuxError
from txmux.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
    from twisted.python.failure import Failure

    from txmux.rules.model.store import Store

__all__ = ["Link", "StoreError"]

_PATIENCE = 5.0
"""Seconds to connect in, and to be let in."""

_SHORTEST, _LONGEST = 0.5, 15.0
"""Seconds between two attempts."""


class StoreError(MuxError):
    """Redis cannot be used."""


class _Factory(Factory):
    """Has what txredisapi's protocols want of theirs: they tell it that a password or a database is refused."""

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
        """Whether it is tried again, the link decides."""

    def connectionError(self, why: object) -> None:
        self.problem = str(why)


class Link:
    """Connects, and connects again: the first time at once, then after times that double, until a connection has lasted.

    Args:
        reactor: Connects, and tells the time.
        store: Where.
        password: The file with the password.
        make: Makes the protocol, of txredisapi, from its keyword arguments.
        up: Is given the protocol, once it can be used.
        down: Is told that it cannot any more, or could not be made, and why; not again while that lasts.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        password: Path | None,
        make: Callable[..., Any],
        up: Callable[[Any], object],
        down: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._password = password
        self._make = make
        self._up = up
        self._down = down
        self._wait = _SHORTEST
        self._up_at = 0.0
        self._is_told = False
        self._again: IDelayedCall | None = None
        self._trying: Deferred[Any] | None = None
        self._protocol: Any = None
        self._stopped = False

    def start(self) -> None:
        """Connect."""
        self._again = None
        if not self._stopped:
            self._trying = Deferred.fromCoroutine(self._connect())
            self._trying.addErrback(self._failed)

    async def _connect(self) -> None:
        factory = _Factory(self._protocol_of)
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
        self._protocol, self._trying = protocol, None
        self._up_at, self._is_told = self._reactor.seconds(), False
        protocol.whenDisconnected().addCallback(lambda _: self._lost())
        self._up(protocol)

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
        # Only who shares limits needs it, and it imports TLS.
        from twisted.internet.endpoints import (  # noqa: PLC0415
            HostnameEndpoint,
            UNIXClientEndpoint,
            wrapClientTLS,
        )

        store = self._store
        self._secret()  # told before anybody is connected to
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
        if not self._is_told:
            self._is_told = True
            self._down(failure.getErrorMessage() or type(failure.value).__name__)
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST)
        # Not all machines come back in one moment.
        self._again = self._reactor.callLater(wait * random.uniform(0.8, 1.2), self.start)  # nosec B311  # noqa: S311 - not for secrets

    def _lost(self) -> None:
        self._protocol = None
        if not self._stopped:
            self._is_told = True
            self._down("the connection is gone")
            # Who is left again and again is not asked for everything several times in a second.
            lasted = self._reactor.seconds() - self._up_at
            wait = _SHORTEST if lasted > _LONGEST else self._wait
            self._wait = min(2 * wait, _LONGEST)
            self._again = self._reactor.callLater(random.uniform(0, wait), self.start)  # nosec B311  # noqa: S311 - not for secrets

    def drop(self) -> None:
        """Break the connection off, and connect again."""
        if self._protocol is not None:
            self._protocol.transport.abortConnection()

    def stop(self) -> Deferred[Any]:
        """Be gone for good."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        waiting: list[Deferred[Any]] = []
        if self._trying is not None:
            self._trying.cancel()
        if self._protocol is not None:
            waiting.append(self._protocol.whenDisconnected())
            # It reads a reply a turn, of as many as have come.
            self._protocol.dataReceived = _nothing
            self._protocol.transport.abortConnection()
            waiting += [deferLater(self._reactor, 0) for _ in range(2)]
        return gatherResults(waiting)


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


def _nothing(*_: object) -> None:
    """Read no more."""
