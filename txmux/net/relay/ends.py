"""The two ends of a connection that txmux is between, and what receives from each of them."""

from __future__ import annotations

import abc
import socket
from typing import TYPE_CHECKING, Literal, Protocol

from twisted.internet import interfaces
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from typing_extensions import override
from zope.interface import implementer

from txmux.net.sockets.transport import SocketTransport

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txmux.net.relay.peer import Unanswered
    from txmux.net.relay.relay import Relay

__all__ = ["NOBODY", "End", "IRelayTransport", "Receiver", "RelaySide"]


class IRelayTransport(interfaces.ITCPTransport, interfaces.IConsumer, interfaces.IPushProducer):
    """What a relay needs of a transport; TCP, UNIX and TLS transports of Twisted all have it."""

    def getHandle() -> object:
        """Return the socket, or what takes its place."""


class Receiver(Protocol):
    """Whoever is told, at present, what happens at an end."""

    def data(self, data: bytes, /) -> None:
        """Take bytes that came from this end's peer."""
        ...

    def finished(self) -> None:
        """Learn that this end's peer will send no more, but still listens (half-close)."""
        ...

    def lost(self, reason: Failure, /) -> None:
        """Learn that this end is gone. Nothing else comes after it."""
        ...


def _how_it_stands(transport: IRelayTransport) -> Literal["finished", "broken", "more"]:
    """Look closer at a connection whose peer is said to have finished.

    For the poll and epoll reactors, a socket that has an error and nothing to read is one that was closed in good
    order. To take a reset for an end would make a cut answer look whole.
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


class _Nobody:
    """Implements `Receiver`."""

    __slots__ = ()  # all share the one

    def data(self, data: bytes, /) -> None:
        pass

    def finished(self) -> None:
        pass

    def lost(self, reason: Failure, /) -> None:
        pass

    def abort(self, reason: object, /) -> None:
        pass


NOBODY = _Nobody()
"""Whom nothing is to be told any more. Who is over points here, so that what it was goes at once."""


@implementer(interfaces.IHalfCloseableProtocol)
class End(TwistedProtocol):
    """The protocol on either connection: it passes on what its transport tells.

    A connection goes through several hands (peeking, connecting, relaying), so who is told changes, while the
    protocol that Twisted knows stays the same.

    Attributes:
        transport: Set by Twisted, before `receiver` is first used.
        receiver: Who is told; set by `connectionMade` of a subclass.
    """

    transport: IRelayTransport
    receiver: Receiver

    @override
    def dataReceived(self, data: bytes) -> None:
        self.receiver.data(data)

    def readConnectionLost(self) -> None:
        """Pass on that the peer has finished sending, if it has."""
        how = _how_it_stands(self.transport)
        if how == "finished":
            self.receiver.finished()
        elif how == "broken":
            self.transport.abortConnection()
        else:
            self.transport.resumeProducing()

    def writeConnectionLost(self) -> None:
        """Pass on that our own half-close has been carried out, to whoever wants to know."""
        wants = getattr(self.receiver, "write_finished", None)
        if wants is not None:
            wants()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.receiver.lost(reason)


class RelaySide(abc.ABC):
    """One end as its relay sees it; implements `Receiver` for that end, from its making on.

    Args:
        end: It may be paused until `start_carrying`.

    Attributes:
        relay: Set by the relay, like `other`.
        other: The side to which its bytes go.
        received: Bytes that came from its peer and were passed on.
        last_byte_at: When the last of them came, in the relay's seconds. Kept up while the relay is not `Relay.ending`.
        has_finished: Whether its peer sends no more.
        gone: Whether its connection is closed.
    """

    __slots__ = (
        "_unsent_before",
        "gone",
        "has_finished",
        "last_byte_at",
        "other",
        "received",
        "relay",
    )

    relay: Relay
    other: RelaySide

    def __init__(self, end: End) -> None:
        self.received = 0
        self.last_byte_at = 0.0
        self._unsent_before = 0
        self.has_finished = False
        self.gone = False
        end.receiver = self

    # What comes from its peer.

    @abc.abstractmethod
    def data(self, data: bytes) -> None: ...

    def finished(self) -> None:
        if not self.has_finished:
            self.has_finished = True
            self.relay.side_finished(self)

    def lost(self, reason: Failure) -> None:
        self.gone = True
        self.relay.side_lost(self, reason)

    # What the relay wants of it.

    @abc.abstractmethod
    def start_carrying(self, *, reading: bool) -> None: ...

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send bytes to its peer, before any that come from the other side."""

    @abc.abstractmethod
    def stop_reading(self) -> None:
        """Stop for good."""

    @abc.abstractmethod
    def half_close(self) -> None:
        """Send the end of the other side, after all that is held."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close cleanly; its peer has taken everything."""

    @abc.abstractmethod
    def close_when_sent(self) -> None:
        """Close cleanly after all that is held has been sent."""

    @abc.abstractmethod
    def abort(self) -> None: ...

    @abc.abstractmethod
    def unsent(self) -> int:
        """Count the bytes that its peer has yet to take."""

    @abc.abstractmethod
    def unanswered(self) -> Unanswered:
        """Return how long its peer has left bytes unanswered that are on their way to it."""

    def is_taking(self) -> bool:
        """Return whether its peer has something to take, and has taken some since the last call."""
        before, self._unsent_before = self._unsent_before, self.unsent()
        return self._unsent_before not in {0, before}
