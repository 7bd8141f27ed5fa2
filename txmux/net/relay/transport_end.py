"""A transport of Twisted's, in the terms of a socket that does not block and of the poller that watches it."""

import socket
from collections.abc import Callable
from errno import EAGAIN, ECONNRESET, ENOPROTOOPT
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.net.relay.peer_state import unacknowledged_by
from txmux.net.relay.peers import NO_RECEIVER, Peer
from txmux.net.sockets.poller import ERROR, FINISHED, READ, TROUBLE, WRITE, Poller
from txmux.net.sockets.transport import SocketTransport, below_tls, socket_below, unsent_bytes


@implementer(IPushProducer)
class TransportEnd:
    """Has the methods of a socket, and those of the poller that watches it; the transport's events come here.

    Attributes:
        is_gone: Whether the transport has ended in order, both ways.
    """

    family = socket.AF_UNIX  # it has no options of TCP

    def __init__(self, transport: Any, poller: Poller) -> None:
        self.reactor, self._poller, self._transport = poller.reactor, poller, transport
        self.bottom = below if isinstance(below := socket_below(transport), socket.socket) else self
        self.is_tls = ISSLTransport.providedBy(transport)
        self._unacknowledged: float | None = None  # once the transport is lost
        # What came before a reset is still passed on.
        below_tls(transport).reads_later = True
        self._received = bytearray()
        self._events = 0
        self._handler: Callable[[int], None] | None = None
        self._has_ended = self._is_lost = self._is_full = self._is_reset = self.is_gone = False
        self._is_shut = self._is_closing = self._has_finished = False
        transport.registerProducer(self, streaming=True)

    @classmethod
    def under(cls, protocol: Any, poller: Poller) -> SocketTransport:
        """Put a transport over a new end in the place of a protocol's."""
        transport = protocol.transport
        end: Any = cls(transport, poller)
        peer = Peer()
        peer.transport, peer.receiver = transport, end
        wrapper = transport.protocol if getattr(transport, "TLS", False) else transport
        if isinstance(wrapper, ProtocolWrapper):
            wrapper.wrappedProtocol = peer
        else:
            transport.protocol = peer
        over = SocketTransport(end, end, cls.family, transport.getPeer(), transport.getHost())
        over.set_protocol(protocol)
        handle = transport.getHandle()
        over.getHandle = lambda: handle  # type: ignore[method-assign]  # as the transport's
        return over

    # Events.

    def data_received(self, data: bytes) -> None:
        if not self._is_closing:
            self._received += data
            self._report()

    def peer_finished(self) -> None:
        self._has_ended = True
        self._report()

    def write_finished(self) -> None:
        self._has_finished = True
        self._transport.registerProducer(self, streaming=True)  # for the end
        self._report()

    def connection_lost(self, reason: Failure) -> None:
        self._has_ended, self.is_gone = True, bool(reason.check(ConnectionDone))
        self._is_lost = not self.is_gone
        self._report()

    # As the transport's producer.

    def pauseProducing(self) -> None:
        self._is_full = True

    def resumeProducing(self) -> None:
        self._is_full = False
        self._report()

    def stopProducing(self) -> None:
        """Note what was lost with the transport, whose socket is about to be closed; `connection_lost` follows."""
        self._unacknowledged = self.unacknowledged()

    def _report(self) -> None:
        ready = READ if self._received else READ | FINISHED if self._has_ended else 0
        if self._has_finished or not (self._is_full or self._is_shut):
            ready |= WRITE
        if self._is_lost or self.is_gone:
            ready |= WRITE | (TROUBLE if self._is_lost else TROUBLE & ~ERROR)
        ready &= self._events | TROUBLE
        if ready and self._handler is not None:
            self._handler(ready)

    # As a poller.

    def watch(self, _descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        self._handler = handler
        self.change(_descriptor, events)

    def change(self, _descriptor: int, events: int) -> None:
        self._events = events
        if not (events & READ or self._has_ended or self._is_closing):
            self._transport.pauseProducing()
        self.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._report()
        if self._events & READ and not (self._received or self._has_ended):
            self._transport.resumeProducing()

    def unwatch(self, descriptor: int) -> None:
        self._handler = None
        self.change(descriptor, 0)

    def closing(self, _descriptor: int) -> None:
        self._handler = None

    def call_soon(self, call: Callable[[], None]) -> None:
        self._poller.call_soon(call)

    # As a socket.

    def fileno(self) -> int:
        return -1

    def setblocking(self, _: bool, /) -> None: ...  # noqa: FBT001 - as a socket's

    def recv_into(self, buffer: Any, size: int = 0, _flags: int = 0) -> int:
        data = self.recv(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def recv(self, size: int, _flags: int = 0) -> bytes:
        data = bytes(self._received[:size])
        if not data and self._is_lost:
            raise ConnectionResetError(ECONNRESET, "the transport was lost")
        if not data and not self._has_ended:
            raise BlockingIOError(EAGAIN, "")
        del self._received[:size]
        if self._received:
            self.call_soon(self._report)
        return data

    @property
    def unsent(self) -> int:
        return unsent_bytes(below_tls(self._transport))

    def unacknowledged(self) -> float:
        if self._unacknowledged is not None:
            return self._unacknowledged
        return self.unsent + unacknowledged_by(self.bottom)

    def send(self, data: Any, _flags: int = 0) -> int:
        if self._is_lost or self.is_gone:
            raise ConnectionResetError(ECONNRESET, "the transport was lost")
        if self._is_full:
            raise BlockingIOError(EAGAIN, "")
        self._transport.write(bytes(data))
        return len(data)

    def shutdown(self, how: int) -> None:
        """End one direction, or both; it is called again until that is done. TLS has no half-close but its close-notify."""
        if how == socket.SHUT_RD:
            if not self._has_ended:
                self._received.clear()
                self._has_ended = True
                self.call_soon(self._report)
            return
        if self._is_lost or self.is_gone:
            return
        transport = self._transport
        if not self._is_shut:
            # With a producer, a transport would not close once its buffer is full, and TLS would not even begin to.
            transport.unregisterProducer()
            self._is_shut = True
            if self.is_tls:
                transport.loseConnection()
            elif how == socket.SHUT_WR:
                transport.loseWriteConnection()
        if how == socket.SHUT_RDWR and not self._is_closing:
            self._is_closing = True
            transport.resumeProducing()  # TLS waits for the close-notify of the other side
            transport.loseConnection()
        if self._is_closing or not (self.is_tls or self._has_finished):
            raise BlockingIOError(EAGAIN, "")

    def setsockopt(self, _level: int, option: int, _value: object) -> None:
        self._is_reset = self._is_reset or option == socket.SO_LINGER

    def getsockopt(self, *_: int) -> Any:
        raise OSError(ENOPROTOOPT, "it is not a socket")

    def getsockname(self) -> Any:
        return self._transport.getHost()

    def close(self) -> None:
        transport = self._transport
        transport.unregisterProducer()
        peer = getattr(transport, "wrappedProtocol", None) or getattr(transport, "protocol", None)
        if isinstance(peer, Peer):
            peer.receiver = NO_RECEIVER
        (transport.abortConnection if self._is_reset else transport.loseConnection)()
