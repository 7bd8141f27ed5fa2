"""Connecting to a backend: its servers in turn, until one answers."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.logger import Logger

from txmux.backends.client import ProxyClientFactory
from txmux.proxyprotocol.encode import encode_v1, encode_v2
from txmux.proxyprotocol.header import Header
from txmux.proxyprotocol.wrappers import HeaderFirst

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure

    from txmux.backends.client import ProxyClient
    from txmux.proxyprotocol.header import Address
    from txmux.rules.model import Backend, Server

__all__ = ["BackendConnector", "ConnectFailure", "dial", "proxy_header"]

ConnectFailure = Literal["connect-refused", "connect-timeout", "error"]
"""Why no server could be reached, in the words of the access log."""

_LOCAL_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


_log = Logger()  # of the module: an event must not keep a connection's objects alive


class BackendConnector:
    """Makes one connection to a backend, for one client.

    Exactly one of the two callables is called, once, unless it is cancelled before.

    Args:
        reactor: Connects and tells the time.
        backend: Whose servers are tried, each at most once, in their order.
        header: Bytes that go before all others on the connection; empty for none.
        on_connected: Given the server's end and the server; sets the end's receiver before it returns.
        on_failed: Given the cause of the last attempt's failure.
    """

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        header: bytes,
        on_connected: Callable[[ProxyClient, Server], None],
        on_failed: Callable[[ConnectFailure], None],
    ) -> None:
        self._reactor = reactor
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
        self._attempt.start(self._reactor, self._header, self._backend.connect_timeout)

    def attempt_connected(self, attempt: _Attempt, end: ProxyClient) -> None:
        """Hand the connection over."""
        self._attempt = None
        self._on_connected(end, attempt.server)

    def attempt_failed(self, attempt: _Attempt, failure: Failure) -> None:
        """Go on with the next server, if there is one."""
        if self._attempt is not attempt:  # it was cancelled
            return
        self._attempt = None
        server = next(self._servers, None)
        (_log.warn if server is None else _log.debug)(
            "backend {backend}: cannot connect to {server}: {why}",
            backend=self._backend.name,
            server=attempt.server.text,
            why=failure.getErrorMessage(),
        )
        if server is None:
            self._on_failed(_cause(failure))
        else:
            self._try(server)


class _Attempt:
    """One attempt at one server."""

    def __init__(self, connector: BackendConnector, server: Server) -> None:
        self._connector = connector
        self.server = server

    def start(self, reactor: Any, header: bytes, timeout: float) -> None:
        factory: Any = ProxyClientFactory(self._connected, self._failed)
        if header:
            factory = HeaderFirst(factory, header)
        self.cancel = dial(reactor, self.server, factory, timeout)

    def _connected(self, end: ProxyClient) -> None:
        self._connector.attempt_connected(self, end)

    def _failed(self, failure: Failure) -> None:
        self._connector.attempt_failed(self, failure)


def dial(
    reactor: Any, server: Server, factory: IProtocolFactory, timeout: float
) -> Callable[[], None]:
    """Start to connect to a server.

    Args:
        reactor: Connects and tells the time.
        server: Where to.
        factory: Builds the protocol; its ``clientConnectionFailed`` hears of a failure.
        timeout: Seconds that it may take in all.

    Returns:
        What cancels the attempt; for use only while neither success nor failure has been reported.
    """
    if server.kind == "unix":
        connector = reactor.connectUNIX(server.path, factory, timeout)
        return connector.disconnect  # type: ignore[no-any-return]
    if server.kind == "tcp" and (isIPAddress(server.host) or isIPv6Address(server.host)):
        connector = reactor.connectTCP(server.host, server.port, factory, timeout)
        return connector.disconnect  # type: ignore[no-any-return]
    if server.kind == "tcp":
        endpoint: Any = HostnameEndpoint(reactor, server.host, server.port)
    else:
        endpoint = clientFromString(reactor, server.text)
    connecting = endpoint.connect(factory).addTimeout(timeout, reactor, _timed_out)
    connecting.addErrback(lambda failure: factory.clientConnectionFailed(None, failure))  # type: ignore[attr-defined]
    return connecting.cancel  # type: ignore[no-any-return]


def _timed_out(result: object, seconds: float) -> NoReturn:  # noqa: ARG001 - Twisted's signature
    # A name with several addresses may fail for one of them, but what ended the attempt is the time.
    raise error.TimeoutError


def proxy_header(backend: Backend, client: Address | None, local: Address | None) -> bytes:
    """Write the PROXY protocol header that tells a backend of its client.

    Args:
        backend: Says which version, if any.
        client: The client's real address; ``None`` if it has none.
        local: The address the client connected to.

    Returns:
        The header; empty when the backend wants none.
    """
    if backend.proxy_protocol == "off":
        return b""
    header = Header.between(client, local)
    return encode_v1(header) if backend.proxy_protocol == "v1" else encode_v2(header)


def _cause(failure: Failure) -> ConnectFailure:
    if failure.check(error.TimeoutError):
        return "connect-timeout"
    if getattr(failure.value, "osError", None) in _LOCAL_TROUBLE:
        return "error"
    return "connect-refused"
