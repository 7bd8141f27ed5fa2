"""A relay's side over any transport of Twisted: each side is the other's streaming producer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import interfaces
from typing_extensions import override
from zope.interface import implementer

from txmux.net.relay.peer import ANSWERED, unanswered_by, unsent
from txmux.net.relay.relay import RelaySide
from txmux.net.sockets.transport import below_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.net.relay.ends import End, IRelayTransport
    from txmux.net.relay.peer import UnansweredBytes


class PortableSide(RelaySide):
    """One end, and the other as the one that produces for it."""

    __slots__ = ("transport",)

    other: PortableSide

    def __init__(self, end: End) -> None:
        super().__init__()
        self.transport: IRelayTransport = end.transport
        # What came before a reset is still passed on; if there is no room for it, the relay gives up in the end.
        below_tls(self.transport).reads_later = True

    def start_carrying(self, *, reading: bool) -> None:
        if reading:
            self.transport.resumeProducing()
        other = self.other.transport
        producer = SideProducer(other.pauseProducing, other.resumeProducing)
        self.transport.registerProducer(producer, streaming=True)

    @override
    def data_received(self, data: bytes) -> None:
        if not self.other.is_closed:
            self.received += len(data)
            relay = self.relay
            if not relay.ending:
                self.last_byte_at = relay.seconds()
            self.other.transport.write(data)

    @override
    def write(self, data: bytes) -> None:
        self.transport.write(data)

    @override
    def stop_reading(self) -> None:
        self.transport.pauseProducing()

    @override
    def half_close(self) -> None:
        self._unregister_producer()
        if interfaces.ISSLTransport.providedBy(self.transport):
            # TLS cannot shut one direction of the TCP connection: its close-notify is the half-close, and what
            # the peer sends after it is still delivered.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    @override
    def close(self) -> None:
        self._unregister_producer()
        if interfaces.ISSLTransport.providedBy(self.transport):
            self.transport.resumeProducing()  # TLS waits for the close-notify of the other side
        self.transport.loseConnection()

    @override
    def close_when_sent(self) -> None:
        self._unregister_producer()
        self.transport.loseConnection()

    @override
    def abort(self) -> None:
        self._unregister_producer()
        self.transport.abortConnection()

    @override
    def unsent(self) -> int:
        return unsent(self.transport)

    @override
    def unanswered(self) -> UnansweredBytes:
        return ANSWERED if self.is_closed else unanswered_by(below_tls(self.transport).getHandle())

    def _unregister_producer(self) -> None:
        # With a producer registered a transport would not close once its buffer is full, and TLS
        # would not even start to.
        self.transport.unregisterProducer()


@implementer(interfaces.IPushProducer)
class SideProducer:
    """Slows a transport's producer down; only the relay ends it, which gets the loss itself, with its reason."""

    __slots__ = ("pauseProducing", "resumeProducing")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pauseProducing, self.resumeProducing = pause, resume

    def stopProducing(self) -> None:
        pass
