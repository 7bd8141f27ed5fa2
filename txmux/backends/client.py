"""The protocol on a connection to a server, and its factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.protocol import ClientFactory

from txmux.relay.ends import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IConnector
    from twisted.python.failure import Failure

__all__ = ["ProxyClient", "ProxyClientFactory"]


class ProxyClient(End):
    """The server's end of a connection. Made by `ProxyClientFactory`."""

    def __init__(self, on_connected: Callable[[ProxyClient], None]) -> None:
        self._on_connected = on_connected

    def connectionMade(self) -> None:
        """Report to whoever asked for this connection; they set the receiver."""
        self._on_connected(self)


class ProxyClientFactory(ClientFactory):
    """Makes one connection to one server on behalf of one client.

    Exactly one of the two callables is called, once.

    Args:
        on_connected: Given the server's end; sets its receiver before it returns.
        on_failed: Given why the connection could not be made.
    """

    noisy = False

    def __init__(
        self,
        on_connected: Callable[[ProxyClient], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._on_connected = on_connected
        self._on_failed = on_failed

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:  # noqa: ARG002 - Twisted's signature
        """Make the protocol for the connection that now stands."""
        return ProxyClient(self._on_connected)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: ARG002
        """Pass the failure on."""
        self._on_failed(reason)
