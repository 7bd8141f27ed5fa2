"""The protocol on a connection to a server, and its factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import ClientFactory, connectionDone
from zope.interface import alsoProvides, implementer

from txmux.relay.ends import NOBODY, End
from txmux.sockets.transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IConnector
    from twisted.python.failure import Failure

    _Awaited = tuple[Callable[["ProxyClient"], None], Callable[[Failure], None]]

__all__ = ["ProxyClient", "ProxyClientFactory"]


@implementer(IHandshakeListener)
class ProxyClient(End):
    """The server's end of a connection. Made by `ProxyClientFactory`."""

    def __init__(
        self,
        on_connected: Callable[[ProxyClient], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._awaited: _Awaited | None = (on_connected, on_failed)

    def connectionMade(self) -> None:
        """Report the connection, unless there is a handshake to come first."""
        if isinstance(self.transport, SocketTransport):
            self._report_connected()
        elif not ISSLTransport.providedBy(self.transport):
            # Twisted's endpoints put a protocol of their own between, which takes over only the last
            # of several interfaces; without this one a half-close would end the connection.
            between = getattr(self.transport, "protocol", self)
            if between is not self:
                alsoProvides(between, IHalfCloseableProtocol)
            self._report_connected()

    def handshakeCompleted(self) -> None:
        """Report the connection, now that TLS stands."""
        self._report_connected()

    def _report_connected(self) -> None:
        # Kept no longer than needed, since much hangs on those who wait: the client's first bytes, for one.
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            on_connected, _ = awaited
            on_connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on that the connection is gone; if it is during the handshake, that it could not be made."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            super().connectionLost(reason)
            self.receiver = NOBODY
        else:
            _, on_failed = awaited
            on_failed(reason)

    def give_up(self) -> None:
        """Break off a connection whose handshake nobody waits for any more."""
        self._awaited = None
        self.receiver = NOBODY
        self.transport.abortConnection()


class ProxyClientFactory(ClientFactory):
    """Makes one connection to one server on behalf of one client.

    Exactly one of the two callables is called, once.

    Args:
        on_connected: Given the server's end; sets its receiver before it returns.
        on_failed: Given why the connection could not be made.

    Attributes:
        client: The protocol, once the connection stands.
    """

    noisy = False
    client: ProxyClient | None = None

    def __init__(
        self,
        on_connected: Callable[[ProxyClient], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._on_connected = on_connected
        self._on_failed = on_failed

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:  # noqa: ARG002 - Twisted's signature
        """Make the protocol for the connection that now stands."""
        self.client = ProxyClient(self._on_connected, self._on_failed)
        return self.client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        """Pass the failure on."""
        self._on_failed(reason)
