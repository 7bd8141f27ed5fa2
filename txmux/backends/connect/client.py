"""The protocol on a connection to a server, and its factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import ECONNREFUSED
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from txmux.classes import define
from txmux.net.header_first import HeaderFirst
from txmux.net.relay.peers import NO_RECEIVER, IRelayTransport, Peer
from txmux.net.sockets.client import OWN_PEER
from txmux.net.sockets.transport import SocketTransport
from txmux.telemetry.formatting import plural
from txmux.wire.steps import RequestRefusedError, Step

if TYPE_CHECKING:
    import socket

    from txmux.backends.connect.dial import Dialler
    from txmux.rules.model import Server
    from txmux.wire.proxyprotocol.header import Address

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
        if maker is not None and maker.wrap is None and (header := maker.opened(self.transport)):
            self.transport.write(header)
        is_tls = ISSLTransport.providedBy(self.transport)  # whose handshake follows
        if isinstance(self.transport, SocketTransport) and not is_tls:
            self._established()
        elif self._is_own_peer():
            self.give_up()
            if maker is not None:
                maker.failed(Failure(error.ConnectionRefusedError(ECONNREFUSED, OWN_PEER)))
        elif not is_tls:
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
    """Makes one connection to one server on behalf of one client, for a `Relay`, or for a check.

    Exactly one of the two callables is called, once, unless the attempt is broken off before; with TLS, when the handshake is complete.
    `connect` starts; or it is given to an endpoint, or to a reactor.

    Args:
        on_connected: Called with the server's end, whose receiver it sets before it returns.
        on_failed: Called with a ``Failure`` that says why there is no connection.

    Attributes:
        on_open: Called with the transport of a connection before anything is sent.
        header: Sent first, before TLS and in the tunnel of a proxy; or a function that makes it for a transport.
        wrap: Makes the factory for TLS that `connect` uses.
        awaited: What there is no answer to yet, for messages.
        requests: Replayed before a server counts as connected.
        client: The protocol, from when it is made until the connection is established.
    """

    noisy = False
    requests: Sequence[Step] = ()
    on_open: Callable[[Any], object] | None = None
    header: bytes | Callable[[Any], bytes] = b""
    wrap: Callable[[Any], Any] | None = None
    awaited = "connection"
    _deadline: IDelayedCall | None = None
    _stop: Callable[[], None] | None = None

    def __init__(
        self, on_connected: Callable[[ProxyClient], None], on_failed: Callable[[Failure], None]
    ) -> None:
        self._callbacks: _Callbacks | None = (on_connected, on_failed)
        self.client: ProxyClient | None = None

    def connect(
        self,
        dialler: Dialler,
        server: Server,
        timeout: float,
        *,
        client: Address | None = None,
        eager: bool = False,
        begun: socket.socket | None = None,
    ) -> None:
        """Start to connect, through the proxy of the dialler if it has one; there may be an outcome before this returns.

        Args:
            dialler: Opens what is needed for it.
            server: The server, for a proxy maybe by its name.
            timeout: Seconds for all of it, with the answers of a proxy, TLS and the requests.
            client: For whom; ``None`` for a check.
            eager: Whether there are bytes to send at once.
            begun: A socket on which the handshake of TCP has begun.
        """
        proxy, requests = dialler.proxy, self.requests
        factory: Any = self
        if proxy is not None:
            self.awaited = f"connection through {proxy.text}"
        try:
            if self.wrap is not None:
                factory = HeaderFirst(self.wrap(self), self.opened)
            if factory is not self or proxy is not None or requests or server.kind == "endpoint":
                # What is dialled has a time limit of its own, for no more than the handshake of TCP.
                self._deadline = dialler.clock.callLater(timeout, self._too_late)
            has_bytes = bool(requests[0].request) if requests else eager
            eager = has_bytes or bool(self.header) or factory is not self
            if proxy is None:
                its: dict[str, Any] = {"client": client, "eager": eager, "begun": begun}
                stop = dialler.dial(server, factory, timeout, **its)
            else:
                stop = proxy.dial(dialler, server, factory, timeout, self._report_open)
        except Exception:  # noqa: BLE001 - a plugin's endpoint may raise anything, and a socket may not be available
            self.failed(Failure())
            return
        if self._callbacks is not None:  # otherwise it has ended already
            self._stop = stop

    def _too_late(self) -> None:
        self._deadline, callbacks = None, self._callbacks
        self.break_off()
        assert callbacks is not None  # noqa: S101 - the deadline goes with them
        callbacks[1](Failure(error.TimeoutError()))

    def _report_open(self, transport: Any) -> None:
        on_open, self.on_open = self.on_open, None
        if on_open is not None:
            on_open(transport)

    def opened(self, transport: Any) -> bytes:
        """Return the header for a connection that is open, to a server if it is through a proxy, before it speaks TLS."""
        self.awaited = "answer" if self.wrap is None else "TLS handshake"
        self._report_open(transport)
        header = self.header
        return header if isinstance(header, bytes) else header(transport)

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:  # noqa: ARG002 - Twisted's signature
        self.client = ProxyClient(self)
        return self.client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        self.failed(reason)

    def drop_callbacks(self) -> None:
        self._callbacks = self.client = self._stop = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def break_off(self, stop_dialling: Callable[[], None] | None = None) -> None:
        """Cancel without a call.

        Args:
            stop_dialling: Called if there is no protocol yet; not needed after `connect`.
        """
        client, stop_dialling = self.client, stop_dialling or self._stop
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
