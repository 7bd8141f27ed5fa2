"""A question to a server by datagrams, in the form of a connection: what is written is one datagram, and so is what comes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python.failure import Failure

from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import place_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.net.sockets.poller import Poller

_LARGEST = 65_535


class DatagramClient:
    """Asks one server. It is a transport, as far as a check needs one.

    Args:
        poller: Watches the socket.
        host: The server's IP address.
        port: Its port.
        factory: Builds the protocol; its ``clientConnectionFailed`` hears of a failure.
    """

    def __init__(self, poller: Poller, host: str, port: int, factory: Any) -> None:
        self._poller = poller
        self._place = host, port
        self._factory = factory
        self._socket: socket.socket | None = None
        self._protocol: Any = None

    def connect(self) -> None:
        """Begin; there is nothing to wait for."""
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            asking.connect(place_of(*self._place))
            self._poller.watch(asking.fileno(), READ, self._ready)
        except OSError as problem:
            asking.close()
            failure = Failure(error.getConnectError(problem))
            self._factory.clientConnectionFailed(None, failure)
            return
        self._socket = asking
        self._protocol = self._factory.buildProtocol(self.getPeer())
        self._protocol.makeConnection(self)

    def disconnect(self) -> None:
        """Leave nothing of it; nobody is told."""
        self._close()

    def write(self, data: bytes) -> None:
        """Send a datagram."""
        if self._socket is None:
            return
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # as if it had been lost on its way
        except OSError as problem:
            why = error.getConnectError(problem)
            self._poller.call_soon(lambda: self._lose(why))

    def _ready(self, events: int) -> None:  # noqa: ARG002 - whatever it is, reading tells
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError as problem:
            self._lose(error.getConnectError(problem))
            return
        self._protocol.dataReceived(data)

    def _lose(self, why: Exception) -> None:
        if self._socket is not None:
            self._close()
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(Failure(why))

    def _close(self) -> None:
        asking, self._socket = self._socket, None
        if asking is not None:
            self._poller.closing(asking.fileno())
            asking.close()

    def loseConnection(self) -> None:
        """Ask no more; the protocol is told after whoever runs now has returned, as with a connection."""
        self._poller.call_soon(lambda: self._lose(error.ConnectionDone()))

    abortConnection = loseWriteConnection = loseConnection

    def getPeer(self) -> IAddress:
        return _address(*self._place)

    def getHost(self) -> IAddress:
        """Return this machine's address."""
        name = self._socket.getsockname() if self._socket is not None else ("0.0.0.0", 0)  # noqa: S104 - none
        return _address(*name[:2])


def _address(host: str, port: int) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("UDP", host, port)
