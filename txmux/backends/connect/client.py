"""The protocol on a connection to a server, and its factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import ECONNREFUSED
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from txmux.classes import define
from txmux.net.relay.peers import NO_RECEIVER, IRelayTransport, Peer
from txmux.net.sockets.client import OWN_PEER
from txmux.net.sockets.transport import SocketTransport
from txmux.telemetry.formatting import plural
from txmux.wire.steps import RequestRefusedError, Step

_Callbacks = tuple[Callable[["ProxyClient"], None], Callable[[Failure], None]]

_LONGEST = 16 * 1024  # bytes of an answer


@define(eq=False)
class Replay:
    """Sends a server the requests that its client was answered here, STARTTLS among them, and discards its answers.

    Args:
        left: The requests.
        failed: Called with the reason if an answer differs; the connection is broken off then.
    """

    _transport: IRelayTransport
    _left: list[Step]
    _done: Callable[[], None]
    _failed: Callable[[Failure], None]
    _received: bytes = attrs.field(default=b"", init=False)

    def start(self) -> None:
        if self._left[0].request:
            self._transport.write(self._left[0].request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            length = self._left[0].length_of(self._received)
        except RequestRefusedError as refusal:
            self._refuse(str(refusal))
            return
        if len(self._received) > (length or _LONGEST):
            self._refuse(f"it sent more than its answer, {plural(len(self._received), 'byte')},")
        elif length:
            self._received = b""
            del self._left[0]
            if self._left:
                self.start()
            else:
                self._done()

    def peer_finished(self) -> None:
        self._refuse("it closed the connection")

    def connection_lost(self, reason: Failure) -> None:
        self._failed(reason)

    def _refuse(self, how: str) -> None:
        self._failed(Failure(RequestRefusedError(f"{how} {self._left[0].hint}")))
        self._transport.abortConnection()


@implementer(IHandshakeListener)
class ProxyClient(Peer):
    """The server's end of a connection. Without a `maker`, another process has made it."""

    def __init__(self, maker: ProxyClientFactory | None = None) -> None:
        self._maker = maker

    def connectionMade(self) -> None:
        maker = self._maker
        if maker is not None and maker.on_open is not None:
            maker.on_open(self.transport)
        if isinstance(self.transport, SocketTransport):
            self._established()
        elif self._is_own_peer():
            self.give_up()
            if maker is not None:
                maker.failed(Failure(error.ConnectionRefusedError(ECONNREFUSED, OWN_PEER)))
        elif not ISSLTransport.providedBy(self.transport):
            # Twisted's endpoints put a protocol of their own between, which takes over only the last
            # of several interfaces; without this one a half-close would end the connection.
            between = getattr(self.transport, "protocol", self)
            if between is not self:
                alsoProvides(between, IHalfCloseableProtocol)
            self._established()

    def _is_own_peer(self) -> bool:
        host = self.transport.getHost()
        return isinstance(host, IPv4Address | IPv6Address) and host == self.transport.getPeer()

    def handshakeCompleted(self) -> None:
        self._established()

    def _established(self) -> None:
        maker = self._maker
        if maker is not None and maker.requests:
            replay = Replay(self.transport, [*maker.requests], self._report_connected, maker.failed)
            self.receiver = replay
            replay.start()
        else:
            self._report_connected()

    def _report_connected(self) -> None:
        # Freed at once, since it refers to much: the client's first bytes, for example.
        maker, self._maker = self._maker, None
        if maker is not None:
            maker.connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        maker, self._maker = self._maker, None
        if maker is None:
            super().connectionLost(reason)
            self.receiver = NO_RECEIVER
        else:
            maker.failed(reason)

    def give_up(self) -> None:
        self._maker = None
        self.receiver = NO_RECEIVER
        self.transport.abortConnection()


class ProxyClientFactory(ClientFactory):
    """Makes one connection to one server on behalf of one client, for a `Relay`.

    Exactly one of the two callables is called, once, unless the attempt is broken off before; with TLS, when the handshake is complete.

    Args:
        on_connected: Called with the server's end, whose receiver it sets before it returns.
        on_failed: Called with a ``Failure`` that says why there is no connection.

    Attributes:
        on_open: Called with the transport of a connection before the protocol uses it.
        requests: Replayed before a server counts as connected.
        client: The protocol, from when it is made until the connection is established.
    """

    noisy = False
    requests: Sequence[Step] = ()
    on_open: Callable[[Any], object] | None = None

    def __init__(
        self, on_connected: Callable[[ProxyClient], None], on_failed: Callable[[Failure], None]
    ) -> None:
        self._callbacks: _Callbacks | None = (on_connected, on_failed)
        self.client: ProxyClient | None = None

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:  # noqa: ARG002 - Twisted's signature
        self.client = ProxyClient(self)
        return self.client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        self.failed(reason)

    def drop_callbacks(self) -> None:
        self._callbacks = self.client = None

    def break_off(self, stop_dialling: Callable[[], None] | None) -> None:
        """Cancel without a call.

        Args:
            stop_dialling: Called if there is no protocol yet; ``None`` is nothing.
        """
        client = self.client
        self.drop_callbacks()
        if client is not None:
            client.give_up()
        elif stop_dialling is not None:
            stop_dialling()

    def connected(self, client: ProxyClient) -> None:
        callbacks = self._callbacks
        self.drop_callbacks()
        if callbacks is not None:
            callbacks[0](client)

    def failed(self, reason: Failure) -> None:
        callbacks = self._callbacks
        self.drop_callbacks()
        if callbacks is not None:
            callbacks[1](reason)
