"""What the demo's own protocols have in common: no buffer of theirs grows without end, whatever a client does."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

if TYPE_CHECKING:
    from txmux.relay.ends import IRelayTransport

__all__ = ["DemoProtocol"]


@implementer(IHalfCloseableProtocol, IPushProducer)
class DemoProtocol(Protocol):
    """A server that answers step by step, and only as fast as its client reads.

    Subclasses write `step`. A client that has finished sending still gets all its answers.

    Attributes:
        pending: The bytes from the client that no step has taken yet.
    """

    transport: IRelayTransport

    def __init__(self) -> None:
        self.pending = bytearray()
        self._paused = False
        self._ended = False
        self._closed = False

    @abstractmethod
    def step(self) -> bool:
        """Take something from the front of `pending` and answer it.

        Returns:
            Whether something was taken; otherwise it waits for more bytes.
        """

    def close(self) -> None:
        """Take no more, and close once all answers are sent."""
        self._closed = True
        self.pending.clear()
        # A transport does not close while it has a producer that it has paused.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        """Ask to be told when the client does not read."""
        self.transport.registerProducer(self, streaming=True)

    def dataReceived(self, data: bytes) -> None:
        """Answer what can be answered by now."""
        if not self._closed:
            self.pending += data
            self._go_on()

    def readConnectionLost(self) -> None:
        """Close after the last answer: the client will ask no more."""
        self._ended = True
        self._go_on()

    def writeConnectionLost(self) -> None:
        """Do nothing: these protocols never half-close themselves."""

    def pauseProducing(self) -> None:
        """Answer no more until the client has read some answers."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on with what is pending, then with what the client sends."""
        self._paused = False
        if not self._ended:
            self.transport.resumeProducing()
        self._go_on()

    def stopProducing(self) -> None:
        """Forget what is pending: the connection is lost."""
        self._closed = True
        self.pending.clear()

    def _go_on(self) -> None:
        while not (self._paused or self._closed):
            if not self.step():
                if self._ended:
                    self.close()
                return
