"""What ports of connections and of datagrams have in common: a socket that is watched by a `Poller`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from txmux.net.sockets.poller import READ

if TYPE_CHECKING:
    import socket

    from txmux.net.sockets.poller import Poller


class WatchedPort(ABC):
    """A socket where clients come in. Its methods are those of Twisted's ports.

    Args:
        poller: Watches the socket.
        bound: The socket, which the port closes in the end.
    """

    def __init__(self, poller: Poller, bound: socket.socket) -> None:
        bound.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._poller = poller
        self._socket = bound
        self._is_open = self._is_reading = False

    @abstractmethod
    def _ready(self, events: int) -> None:
        """Take what has come."""

    def _open(self) -> None:
        try:
            self._poller.watch(self._socket.fileno(), READ, self._ready)
        except OSError:
            self._socket.close()
            raise
        self._is_open = self._is_reading = True

    def _close(self) -> None:
        self._is_open = self._is_reading = False
        # Another process may have the same socket, so that closing it here does not end the watch.
        self._poller.forget(self._socket.fileno())
        self._socket.close()

    def stopReading(self) -> None:
        """Leave what comes in the queue, until `startReading`."""
        if self._is_open:
            self._is_reading = False
            # Still watched, for nothing: otherwise the epoll object might be closed, and not be had again.
            self._poller.watch(self._socket.fileno(), 0, self._ready)

    def startReading(self) -> None:
        """Take what comes again."""
        if self._is_open:
            self._is_reading = True
            self._poller.watch(self._socket.fileno(), READ, self._ready)

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        """Take what has come, as a reactor has it."""
        if self._is_open:
            self._ready(READ)
