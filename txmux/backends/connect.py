"""Connecting to a backend: its servers in turn, until one answers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet import error
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.client import ProxyClientFactory
from txmux.proxyprotocol.encode import encode_v1, encode_v2
from txmux.proxyprotocol.header import Header
from txmux.proxyprotocol.wrappers import HeaderFirst

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txmux.backends.client import ProxyClient
    from txmux.proxyprotocol.header import Address
    from txmux.rules.model import Backend, Server

__all__ = ["BackendConnector", "ConnectFailure", "Dial", "proxy_header"]

Dial = Callable[["Server", Any, float], Callable[[], None]]
"""Starts to connect: a server, a client factory and seconds in; what cancels the attempt out."""

ConnectFailure = Literal["connect-refused", "connect-timeout", "tls-failed", "error"]
"""Why no server could be reached, in the words of the access log."""

_LOCAL_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


_log = Logger()  # of the module: an event must not keep a connection's objects alive


class BackendConnector:
    """Makes one connection to a backend, for one client.

    Exactly one of the two callables is called, once, unless it is cancelled before.

    Args:
        clock: For the time limits.
        dial: Connects.
        backend: Whose servers are tried, each at most once, in their order.
        header: Bytes that go before all others on the connection; empty for none.
        on_connected: Given the server's end and the server; sets the end's receiver before it returns.
        on_failed: Given the cause of the last attempt's failure, and its server.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dial: Dial,
        backend: Backend,
        header: bytes,
        on_connected: Callable[[ProxyClient, Server], None],
        on_failed: Callable[[ConnectFailure, Server], None],
    ) -> None:
        self._clock = clock
        self._dial = dial
        self._backend = backend
        self._header = header
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._servers = iter(backend.servers[: backend.retries + 1])
        self._attempt: _Attempt | None = None

    def start(self) -> None:
        """Begin with the first server."""
        self._try(next(self._servers))

    def cancel(self) -> None:
        """Give up: neither callable will be called any more."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _try(self, server: Server) -> None:
        # Known before it starts, since an attempt may fail while it is being started.
        self._attempt = _Attempt(self, server)
        self._attempt.start(self._clock, self._dial, self._header, self._backend.connect_timeout)

    def attempt_connected(self, attempt: _Attempt, end: ProxyClient) -> None:
        """Hand the connection over."""
        self._attempt = None
        self._on_connected(end, attempt.server)

    def attempt_failed(self, attempt: _Attempt, failure: Failure) -> None:
        """Go on with the next server, if there is one."""
        self._attempt = None
        server = next(self._servers, None)
        (_log.warn if server is None else _log.debug)(
            "backend {backend}: cannot connect to {server}: {why}",
            backend=self._backend.name,
            server=attempt.server.text,
            why=failure.getErrorMessage(),
        )
        if server is None:
            self._on_failed(_cause(failure), attempt.server)
        else:
            self._try(server)


class _Attempt:
    """One attempt at one server. When it is over it lets go of the connector, which the transport would keep alive."""

    def __init__(self, connector: BackendConnector, server: Server) -> None:
        self._connector: BackendConnector | None = connector
        self.server = server
        self._deadline: IDelayedCall | None = None
        self._stop_dialling: Callable[[], None] | None = None
        self._factory: ProxyClientFactory | None = None

    def start(self, clock: IReactorTime, dial: Dial, header: bytes, timeout: float) -> None:
        """Connect; whatever goes wrong is told to the connector."""
        self._factory = ProxyClientFactory(self._connected, self._failed)
        factory: Any = HeaderFirst(self._factory, header) if header else self._factory
        if self.server.kind == "endpoint":
            # Its own end is only that of the TCP connection; a TLS handshake counts as well.
            self._deadline = clock.callLater(timeout, self._too_late)
        try:
            stop_dialling = dial(self.server, factory, timeout)
            if self._connector is not None:  # it is not over yet
                self._stop_dialling = stop_dialling
        except Exception:  # noqa: BLE001 - a plugin's endpoint may raise anything, and so may a lack of descriptors
            self._failed(Failure())

    def cancel(self) -> None:
        """Give up; nothing is told any more."""
        factory, stop_dialling = self._factory, self._stop_dialling
        self._finish()
        if factory is not None and factory.client is not None:
            factory.client.give_up()
        elif stop_dialling is not None:
            stop_dialling()

    def _too_late(self) -> None:
        self._deadline = None
        connector = self._connector
        self.cancel()
        if connector is not None:
            connector.attempt_failed(self, Failure(error.TimeoutError()))

    def _connected(self, end: ProxyClient) -> None:
        connector = self._finish()
        if connector is not None:
            connector.attempt_connected(self, end)

    def _failed(self, failure: Failure) -> None:
        connector = self._finish()
        if connector is not None:
            connector.attempt_failed(self, failure)

    def _finish(self) -> BackendConnector | None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        connector, self._connector = self._connector, None
        self._stop_dialling = self._factory = None
        return connector


def proxy_header(backend: Backend, client: Address | None, local: Address | None) -> bytes:
    """Write the PROXY protocol header that tells a backend of its client.

    Args:
        backend: Says which version.
        client: The client's real address; ``None`` if it has none.
        local: The address the client connected to.

    Returns:
        The header.
    """
    header = Header.between(client, local)
    return encode_v1(header) if backend.proxy_protocol == "v1" else encode_v2(header)


def _cause(failure: Failure) -> ConnectFailure:
    if failure.check(error.TimeoutError):
        return "connect-timeout"
    if failure.type.__module__.startswith(("OpenSSL", "service_identity")):
        return "tls-failed"
    if getattr(failure.value, "osError", None) in _LOCAL_TROUBLE:
        return "error"
    refused = failure.check(error.ConnectError, error.ConnectionClosed, error.DNSLookupError)
    return "connect-refused" if refused else "error"
