"""A transport of Twisted's, in the terms of a socket that does not block and of the poller that watches it, for TLS inside it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EAGAIN, ECONNRESET, ENOPROTOOPT
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from txmux.net.relay.peers import NO_RECEIVER, Peer
from txmux.net.relay.portable import SideProducer
from txmux.net.sockets.poller import FINISHED, READ, TROUBLE, WRITE, Poller
from txmux.net.sockets.transport import SocketTransport, socket_below


class TransportEnd:
    """Receives the transport's events, and tells the one who watches it when it can be read and written."""

    family = socket.AF_UNIX  # it has no options of TCP

    def __init__(self, transport: Any, poller: Poller) -> None:
        self.reactor, self._poller, self._transport = poller.reactor, poller, transport
        self.bottom = below if isinstance(below := socket_below(transport), socket.socket) else self
        self._received = bytearray()
        self._events = 0
        self._handler: Callable[[int], None] | None = None
        self._has_ended = self._is_lost = self._is_full = self._is_reset = False
        transport.registerProducer(SideProducer(self._filled, self._emptied), streaming=True)

    @classmethod
    def under(cls, protocol: Any, poller: Poller) -> SocketTransport:
        """Put a transport over a new end in the place of a protocol's."""
        transport = protocol.transport
        end: Any = cls(transport, poller)
        peer = Peer()
        peer.transport, peer.receiver = transport, end
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = peer
        else:
            transport.protocol = peer
        family = int(end.family)
        over = SocketTransport(end, end, family, transport.getPeer(), transport.getHost())
        over.set_protocol(protocol)
        over.startReading()
        return over

    # Events.

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._report()

    def peer_finished(self) -> None:
        self._has_ended = True
        self._report()

    def connection_lost(self, reason: Failure) -> None:
        self._has_ended, self._is_lost = True, not reason.check(ConnectionDone)
        self._report()

    def _filled(self) -> None:
        self._is_full = True

    def _emptied(self) -> None:
        self._is_full = False
        self._report()

    def _report(self) -> None:
        can_read = READ if self._received else READ | FINISHED if self._has_ended else 0
        ready = can_read | (0 if self._is_full else WRITE) | (TROUBLE if self._is_lost else 0)
        ready &= self._events | TROUBLE
        if ready and self._handler is not None:
            self._handler(ready)

    # As a poller.

    def watch(self, _descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        self._handler = handler
        self.change(_descriptor, events)

    def change(self, _descriptor: int, events: int) -> None:
        self._events = events
        if not self._has_ended:
            (self._transport.resumeProducing if events & READ else self._transport.pauseProducing)()
        self.call_soon(self._report)

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

    def send(self, data: Any, _flags: int = 0) -> int:
        if self._is_lost:
            raise ConnectionResetError(ECONNRESET, "the transport was lost")
        if self._is_full:
            raise BlockingIOError(EAGAIN, "")
        self._transport.write(bytes(data))
        return len(data)

    def shutdown(self, how: int) -> None:
        if how == socket.SHUT_RD and not self._has_ended:
            self._received.clear()
            self._has_ended = True
            self.call_soon(self._report)

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
