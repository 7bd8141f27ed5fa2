"""Connections to the servers of a backend through a SOCKS or HTTP proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from txmux.backends.connect.dial import Dialler
from txmux.errors import cause_of
from txmux.features.tunnels.request import ProxyRefusedError, TunnelRequest, TunnelTarget
from txmux.features.tunnels.via import Via
from txmux.net.secrets import read_key
from txmux.rules.model import Server

_LONGEST_PASSWORD = 255  # bytes (RFC 1929, section 2)

read_password = partial(read_key, longest=_LONGEST_PASSWORD)


class ProxyDialler:
    """Dials servers through the proxy of a backend; a `ServerDialler`.

    Args:
        addresses: Returns those of the proxy, literal ones.
        password: Returns that for the proxy.
    """

    def __init__(
        self, via: Via, addresses: Callable[[], Sequence[Server]], password: Callable[[], str]
    ) -> None:
        self.via = via
        self.text = via.server.text
        self._addresses = addresses
        self._password = password
        self._last_good: Server | None = None

    def dial(
        self,
        dialler: Dialler,
        server: Server,
        factory: Any,
        timeout: float,
        on_open: Callable[[Any], object],
    ) -> Callable[[], None]:
        # The addresses of the proxy share the time to connect to it.
        via = self.via
        target = TunnelTarget(server.host, server.port, via.user, self._password())
        addresses = sorted(self._addresses(), key=lambda one: one != self._last_good)
        attempt = _Attempt(factory, via, TunnelRequest(via.kind, target), on_open)

        def connect(address: Server) -> Callable[[], None]:
            self._last_good = address  # until it fails
            return dialler.dial(address, attempt, timeout / len(addresses), eager=True)

        attempt.left = [partial(connect, address) for address in addresses]
        attempt.start()
        return attempt.cancel


class _Attempt(ClientFactory):
    """One connection to a proxy, which becomes a connection of another factory to the server.

    Attributes:
        left: The ways to dial the proxy that have not been tried.
    """

    noisy = False

    def __init__(
        self,
        factory: Any,
        via: Via,
        request: TunnelRequest,
        on_open: Callable[[Any], object],
    ) -> None:
        self._factory = factory
        self._proxy = via.server.text
        self.request = request
        self.on_open = on_open
        self.left: list[Callable[[], Callable[[], None]]] = []
        self._tunnel: _Tunnel | None = None
        self._stop_dialling: Callable[[], None] | None = None

    def start(self) -> None:
        if not self.left:
            self.fail("its name has no address")
            return
        count = len(self.left)
        stop_dialling = self.left.pop(0)()
        if len(self.left) == count - 1:  # else it has failed, and the next one is dialled
            self._stop_dialling = stop_dialling

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self._tunnel = _Tunnel(self, addr)
        return self._tunnel

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        if self._factory is None:
            return
        if not self.left:
            self._fail(reason)
            return
        try:
            self.start()
        except Exception:  # noqa: BLE001 - as of the first one, which the caller of `dial` handles
            self._fail(Failure())

    def established(self, transport: Any, addr: IAddress | None) -> None:
        """Pass the connection on, and then the first bytes of the server."""
        factory, self._factory = self._factory, None
        protocol: Any = factory.buildProtocol(addr)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if self.request.rest and transport.connected:
            protocol.dataReceived(self.request.rest)

    def fail(self, why: str) -> None:
        self._fail(Failure(error.ConnectError(None, why)))

    def _fail(self, reason: Failure) -> None:
        factory, self._factory = self._factory, None
        if factory is None:
            return
        if not reason.check(error.TimeoutError):
            number = getattr(reason.value, "osError", None)
            why = f"the proxy {self._proxy}: {cause_of(reason.value)}"
            reason = Failure(error.ConnectError(number, why))
        factory.clientConnectionFailed(None, reason)

    def cancel(self) -> None:
        self._factory = None
        if self._tunnel is not None:
            self._tunnel.transport.abortConnection()
        elif self._stop_dialling is not None:
            self._stop_dialling()


class _Tunnel(Protocol):
    transport: Any

    def __init__(self, attempt: _Attempt, addr: IAddress | None) -> None:
        self._attempt = attempt
        self._addr = addr

    def connectionMade(self) -> None:
        attempt = self._attempt
        attempt.on_open(self.transport)
        self.transport.write(attempt.request.first)

    def dataReceived(self, data: bytes) -> None:
        attempt = self._attempt
        try:
            more = attempt.request.receive(data)
        except ProxyRefusedError as refusal:
            self.transport.abortConnection()
            attempt.fail(f"it {refusal}")
            return
        if more:
            self.transport.write(more)
        if attempt.request.is_granted:
            attempt.established(self.transport, self._addr)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(error.ConnectionDone):
            self._attempt.fail("it closed the connection instead of answering")
        else:
            self._attempt.fail(cause_of(reason.value))
