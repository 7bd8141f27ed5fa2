"""A transport without a network, which behaves as real ones do when their peer is slow, finishes or disconnects."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport, IConsumer, IPushProducer)
class WaterMarkTransport:
    """One end of a connection in memory, whose other end, the peer, is the test.

    Nothing happens by itself: the peer sends by `deliver`, `finish` and `reset`, and reads by `take`. What a real
    transport does later, once its buffer is empty or in the reactor's next turn, is done within `take`: it resumes
    the producer, carries a half-close out, and closes.

    Args:
        high_water: A producer is paused when more than this number of bytes wait to be taken.
        peer: What `getPeer` gives.
        host: What `getHost` gives.

    Attributes:
        unsent: Bytes that the protocol has written and the peer has not taken.
        finished: Whether the peer has got the end of the stream.
        lost: Why the connection has ended; ``None`` before that.
        paused: Whether the protocol has paused reading.
        producer: The registered producer.
    """

    def __init__(
        self,
        high_water: int = 64 * 1024,
        *,
        peer: IPv4Address | IPv6Address | None = None,
        host: IPv4Address | IPv6Address | None = None,
    ) -> None:
        self.high_water = high_water
        self._peer = peer or IPv4Address("TCP", "192.0.2.1", 50000)
        self._host = host or IPv4Address("TCP", "192.0.2.2", 443)
        self.unsent = bytearray()
        self.finished = False
        self.lost: Failure | None = None
        self.paused = False
        self.producer: Any = None
        self.disconnecting = False
        self._streaming = False
        self._producer_paused = False
        self._finishing = False
        self._aborting = False
        self._arriving: deque[bytes | None] = deque()  # None is the end of what the peer sends
        self._delivering = False
        self._keep_alive = self._no_delay = False

    def connect(self, protocol: IProtocol) -> None:
        """Connect a protocol."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # What the peer does.

    def deliver(self, data: bytes) -> None:
        """Send bytes to the protocol, in one piece; they wait while it is paused."""
        self._arriving.append(data)
        self._deliver()

    def finish(self) -> None:
        """Finish sending, but keep reading. As with sockets, this ends a protocol without half-close."""
        self._arriving.append(None)
        self._deliver()

    def reset(self) -> None:
        """Reset the connection; bytes on their way in either direction are lost."""
        self._lose(ConnectionLost())

    def take(self, count: int | None = None) -> bytes:
        """Read what the protocol has written.

        Args:
            count: The most bytes; by default all there are.

        Returns:
            The bytes. What a producer writes that is resumed by this comes next time.
        """
        size = len(self.unsent) if count is None else count
        taken = bytes(self.unsent[:size])
        del self.unsent[:size]
        if self._aborting:
            self._lose(ConnectionAborted())
        elif not self.unsent and self.lost is None:
            self._emptied()
        return taken

    def _emptied(self) -> None:
        if self.producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._lose(ConnectionDone())
        elif self._finishing and not self.finished:
            self.finished = True
            half_closeable = IHalfCloseableProtocol(self.protocol, None)
            if half_closeable is not None:
                half_closeable.writeConnectionLost()

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._arriving and not (self.paused or self._is_closing()):
                data = self._arriving.popleft()
                if data is None:
                    self._read_lost()
                else:
                    self.protocol.dataReceived(data)
        finally:
            self._delivering = False

    def _read_lost(self) -> None:
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self._lose(ConnectionDone())
        else:
            half_closeable.readConnectionLost()

    def _is_closing(self) -> bool:
        return self.disconnecting or self._aborting or self.lost is not None

    def _lose(self, reason: Exception) -> None:
        if self.lost is not None:
            return
        self.lost = Failure(reason)
        self.unsent.clear()
        self._arriving.clear()
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.protocol.connectionLost(self.lost)

    # What the protocol does.

    def write(self, data: bytes) -> None:
        """Send bytes, and pause the producer if the peer has too many of them to take."""
        if self.lost is not None or self._aborting or self._finishing:
            return
        self.unsent += data
        if (
            self.producer is not None
            and self._streaming
            and not self._producer_paused
            and len(self.unsent) > self.high_water
        ):
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        self._finishing = True

    def abortConnection(self) -> None:
        """Abort the connection; the protocol is notified when the peer next reads."""
        self._aborting = True
        self.unsent.clear()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Register a producer to pause above the high-water mark and resume when all is taken.

        Raises:
            RuntimeError: There is one already.
        """
        if self.producer is not None:
            message = f"{self.producer!r} is registered; unregister it before {producer!r}"
            raise RuntimeError(message)
        if self.lost is not None:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        """Read on, at once also what has waited."""
        self.paused = False
        self._deliver()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address | IPv6Address:
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._host

    def getHandle(self) -> object:
        return None

    def getTcpNoDelay(self) -> bool:
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001
        self._no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001
        self._keep_alive = enabled
