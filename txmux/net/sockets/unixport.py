"""A UNIX socket that several processes accept connections from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from typing_extensions import override

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure


class SharedUNIXPort(unix.Port):
    """Leaves the mode, the backlog and the file of the socket to the process that opened it.

    Args:
        opened: Listens already. The port works on a duplicate, so this one stays the caller's to close.
        factory: Is told of each client.
        reactor: Waits for them.
    """

    _shouldShutdown = False

    def __init__(self, opened: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(opened.getsockname(), factory, reactor=reactor)
        self._factory = factory
        self.socket = opened.dup()

    @override
    def startListening(self) -> None:
        self._factory.doStart()
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as Twisted's own ports do
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, here only."""
        tcp.Port.connectionLost(self, reason)
