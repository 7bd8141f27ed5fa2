"""The two peers that txmux is between, and the receivers of their events."""

import socket
from typing import Literal, Protocol

from twisted.internet import interfaces
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.net.sockets.transport import SocketTransport


class IRelayTransport(interfaces.ITCPTransport, interfaces.IConsumer, interfaces.IPushProducer):
    """The interface that a relay needs of a transport; Twisted's TCP, UNIX and TLS transports have it."""

    def getHandle() -> object: ...


class PeerReceiver(Protocol):
    """The current receiver of a peer's events."""

    def data_received(self, data: bytes, /) -> None: ...

    def peer_finished(self) -> None:
        """The peer has finished sending, but still reads (half-close)."""

    def connection_lost(self, reason: Failure, /) -> None:
        """The connection is closed; the last event."""


def _end_of_reading(transport: IRelayTransport) -> Literal["finished", "broken", "more"]:
    """Distinguish a reset from an end: poll and epoll reactors report both as a clean end if nothing is to be read.

    To take a reset for an end would make a cut answer look whole.
    """
    handle = transport.getHandle()
    if not isinstance(handle, socket.socket) or isinstance(transport, SocketTransport):
        return "finished"
    try:
        return "more" if handle.recv(1, socket.MSG_PEEK) else "finished"
    except BlockingIOError:
        return "more"
    except OSError:
        return "broken"


class _NoReceiver:
    __slots__ = ()  # all share the one

    def data_received(self, data: bytes, /) -> None:
        pass

    def peer_finished(self) -> None:
        pass

    def connection_lost(self, reason: Failure, /) -> None:
        pass

    def abort(self, reason: object, /) -> None:
        pass


NO_RECEIVER = _NoReceiver()
"""Ignores all events. A closed connection refers to it, so that its last receiver is freed at once."""


@implementer(interfaces.IHalfCloseableProtocol)
class Peer(TwistedProtocol):
    """The protocol of a connection to a client or a server: it passes its transport's events to a receiver.

    A connection has several receivers in turn (peeking, connecting, relaying), while the protocol that Twisted knows stays
    the same.

    Attributes:
        transport: Set by Twisted, before `receiver` is first used.
        receiver: The current one; first set by `connectionMade` of a subclass.
    """

    transport: IRelayTransport
    receiver: PeerReceiver

    @override
    def dataReceived(self, data: bytes) -> None:
        self.receiver.data_received(data)

    def readConnectionLost(self) -> None:
        how = _end_of_reading(self.transport)
        if how == "finished":
            self.receiver.peer_finished()
        elif how == "broken":
            self.transport.abortConnection()
        else:
            self.transport.resumeProducing()

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out, which only some receivers want to know."""
        write_finished = getattr(self.receiver, "write_finished", None)
        if write_finished is not None:
            write_finished()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.receiver.connection_lost(reason)
