"""The protocol on a connection to a server, and its factory."""

from __future__ import annotations

from errno import ECONNREFUSED
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from txmux.errors import MuxError
from txmux.net.relay.ends import NO_RECEIVER, End
from txmux.net.sockets.client import OWN_PEER
from txmux.net.sockets.transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IAddress, IConnector

    from txmux.interfaces import Exchange
    from txmux.net.relay.ends import IRelayTransport

    _Awaited = tuple[Callable[["ProxyClient"], None], Callable[[Failure], None]]


_SHOWN = 40  # bytes


class RequestRefusedError(MuxError):
    """A server has not answered as the client had been told already."""


class Replay:
    """Listens to a server until it has given all answers, which go no further.

    Args:
        exchanges: What it is asked, and the only answers that will do.
        done: Is called when it has given them.
        failed: Is told why it has not; the connection is broken off then.
    """

    def __init__(
        self,
        transport: IRelayTransport,
        exchanges: Sequence[Exchange],
        done: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._transport = transport
        self._left = list(exchanges)
        self._done = done
        self._failed = failed
        self._received = b""

    def start(self) -> None:
        self._transport.write(self._left[0].request)

    def data(self, data: bytes) -> None:
        """Compare what comes with what has to come, which is nothing more than that."""
        self._received += data
        expected = self._left[0].answer
        if self._received == expected:
            self._received = b""
            del self._left[0]
            if self._left:
                self.start()
            else:
                self._done()
        elif not expected.startswith(self._received):
            self._refuse(f"it answered {self._received[:_SHOWN]!r}")

    def finished(self) -> None:
        self._refuse("it closed the connection")

    def lost(self, reason: Failure) -> None:
        self._failed(reason)

    def _refuse(self, how: str) -> None:
        question = self._left[0]
        why = (
            f"{how} when it was asked {question.request!r}, to which the client had been told {question.answer!r}; "
            "let the server accept that, which for PostgreSQL is 'ssl = on', or match without sni="
        )
        self._failed(Failure(RequestRefusedError(why)))
        self._transport.abortConnection()


@implementer(IHandshakeListener)
class ProxyClient(End):
    """The server's end of a connection. Made by `ProxyClientFactory`.

    Args:
        maker: Is told how it goes; nobody, if another process has made the connection.
    """

    def __init__(self, maker: ProxyClientFactory | None = None) -> None:
        self._maker = maker

    def connectionMade(self) -> None:
        """Report the connection, unless there is a handshake to come first."""
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
        """Return whether the connection is to itself, which `txmux.net.sockets.client` finds out before."""
        host = self.transport.getHost()
        return isinstance(host, IPv4Address | IPv6Address) and host == self.transport.getPeer()

    def handshakeCompleted(self) -> None:
        """Report the connection, now that TLS is established."""
        self._established()

    def _established(self) -> None:
        """Report the connection, unless the server has to be asked something first."""
        maker = self._maker
        if maker is not None and maker.requests:
            replay = Replay(self.transport, maker.requests, self._report_connected, maker.failed)
            self.receiver = replay
            replay.start()
        else:
            self._report_connected()

    def _report_connected(self) -> None:
        # Kept no longer than needed, since much depends on those who wait: the client's first bytes, for one.
        maker, self._maker = self._maker, None
        if maker is not None:
            maker.connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on that the connection is gone; if it is during the handshake, that it could not be made."""
        maker, self._maker = self._maker, None
        if maker is None:
            super().connectionLost(reason)
            self.receiver = NO_RECEIVER
        else:
            maker.failed(reason)

    def give_up(self) -> None:
        """Break off a connection whose handshake nobody waits for any more."""
        self._maker = None
        self.receiver = NO_RECEIVER
        self.transport.abortConnection()

    def put_away(self) -> None:
        """Close a connection that is established, but that nobody has any use for."""
        self.receiver = NO_RECEIVER
        if ISSLTransport.providedBy(self.transport):
            self.transport.abortConnection()  # TLS would wait for the server's close-notify
        else:
            self.transport.loseConnection()


class ProxyClientFactory(ClientFactory):
    """Makes one connection to one server on behalf of one client.

    Exactly one of the two callables is called, once, unless it is told to `forget` before.

    Args:
        on_connected: Given the server's end; sets its receiver before it returns.
        on_failed: Given why the connection could not be made.

    Attributes:
        on_open: Given the transport when there is a connection, before the protocol does anything with it.
        requests: What a server has to be asked before it counts as connected.
        client: The protocol, from when it is made until the connection is established.
    """

    noisy = False
    requests: Sequence[Exchange] = ()
    on_open: Callable[[Any], object] | None = None

    def __init__(
        self,
        on_connected: Callable[[ProxyClient], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._awaited: _Awaited | None = (on_connected, on_failed)
        self.client: ProxyClient | None = None

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:  # noqa: ARG002 - Twisted's signature
        """Make the protocol for the connection that is now established."""
        self.client = ProxyClient(self)
        return self.client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        self.failed(reason)

    def forget(self) -> None:
        self._awaited = self.client = None

    def break_off(self, stop_dialling: Callable[[], None] | None) -> None:
        """Call nobody any more, and leave nothing of the connection.

        Args:
            stop_dialling: Cancels the attempt as long as there is no protocol; ``None`` if dialling has not begun.
        """
        client = self.client
        self.forget()
        if client is not None:
            client.give_up()
        elif stop_dialling is not None:
            stop_dialling()

    def connected(self, client: ProxyClient) -> None:
        """Report that the connection is established."""
        awaited = self._awaited
        self.forget()
        if awaited is not None:
            awaited[0](client)

    def failed(self, reason: Failure) -> None:
        """Report that there will be no connection."""
        awaited = self._awaited
        self.forget()
        if awaited is not None:
            awaited[1](reason)
