"""Connections to the servers of a backend through a SOCKS or HTTP proxy."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.internet import error
from twisted.python.failure import Failure

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import Dialler
from txmux.classes import define
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
        via = self.via
        target = TunnelTarget(server.host, server.port, via.user, self._password())
        addresses = sorted(self._addresses(), key=lambda one: one != self._last_good)

        def in_turn() -> Iterator[Server]:
            for address in addresses:
                self._last_good = address  # until it fails
                yield address

        attempt = _Attempt(
            factory,
            self.text,
            attrs.evolve(dialler, proxy=None),
            TunnelRequest(via.kind, target),
            on_open,
            in_turn(),
            timeout / max(1, len(addresses)),  # they share the time to connect
        )
        attempt.start()
        return attempt.cancel


@define(eq=False)
class _Attempt:
    """One connection to a proxy, which becomes a connection of another factory to the server. Receives what the proxy sends."""

    _factory: Any
    _proxy: str
    _dialler: Dialler
    _request: TunnelRequest
    _on_open: Callable[[Any], object]
    _left: Iterator[Server]
    _seconds: float
    _connecting: ProxyClientFactory | None = attrs.field(default=None, init=False)
    _transport: Any = attrs.field(default=None, init=False)

    def start(self, failure: Failure | None = None) -> None:
        """Try the next address, or report the failure of the last one."""
        address = next(self._left, None)
        if address is None:
            self._fail(failure or _refused("its name has no address"))
            return
        self._connecting = connecting = ProxyClientFactory(self._connected, self.start)
        connecting.on_open = self._on_open
        connecting.connect(self._dialler, address, self._seconds, eager=True)

    def cancel(self) -> None:
        self._factory = None
        if self._transport is not None:
            self._transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.break_off()

    def _connected(self, proxy: ProxyClient) -> None:
        proxy.receiver, self._transport = self, proxy.transport
        self._transport.write(self._request.first)

    def data_received(self, data: bytes) -> None:
        request, transport = self._request, self._transport
        try:
            more = request.receive(data)
        except ProxyRefusedError as refusal:
            self._break_off(f"it {refusal}")
            return
        if more:
            transport.write(more)
        if request.is_granted:
            factory, self._factory = self._factory, None
            protocol = transport.protocol = factory.buildProtocol(transport.getPeer())
            protocol.makeConnection(transport)
            if request.rest and transport.connected:
                protocol.dataReceived(request.rest)

    def peer_finished(self) -> None:
        self._break_off("it closed the connection instead of answering")

    def connection_lost(self, reason: Failure) -> None:
        self._fail(_refused(cause_of(reason.value)))

    def _break_off(self, why: str) -> None:
        self._transport.abortConnection()
        self._fail(_refused(why))

    def _fail(self, reason: Failure) -> None:
        factory, self._factory = self._factory, None
        if factory is None:
            return
        if not reason.check(error.TimeoutError):
            number = getattr(reason.value, "osError", None)
            why = f"the proxy {self._proxy}: {cause_of(reason.value)}"
            reason = Failure(error.ConnectError(number, why))
        factory.clientConnectionFailed(None, reason)


def _refused(why: str) -> Failure:
    return Failure(error.ConnectError(None, why))
