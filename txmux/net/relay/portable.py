"""A relay's side over any transport of Twisted: each side is the other's streaming producer, perhaps held to a rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import interfaces
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, implementer, providedBy

from txmux.classes import frozen
from txmux.net.relay.peer_state import (
    ANSWERED,
    UnansweredBytes,
    unacknowledged_by,
    unanswered_by,
    unsent,
)
from txmux.net.relay.peers import IRelayTransport, Peer
from txmux.net.relay.relay import RelaySide
from txmux.net.sockets.transport import below_tls, socket_below, unsent_bytes


class PortableSide(RelaySide):
    """One peer, and the other as the one that produces for it."""

    __slots__ = ("transport",)

    other: PortableSide

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.transport: IRelayTransport = peer.transport
        # What came before a reset is still passed on; if there is no room for it, the relay gives up in the end.
        bottom = below_tls(self.transport)
        bottom.reads_later = True
        # Of TLS, records that are not needed count, too.
        if not interfaces.ISSLTransport.providedBy(self.transport):
            # When the relay is notified of a loss, the socket is closed.
            bottom.connectionLost = partial(self._measure_loss, bottom)

    def start_forwarding(self, *, reading: bool) -> None:
        if reading:
            self.transport.resumeProducing()
        other = self.other.transport
        producer = SideProducer(other.pauseProducing, other.resumeProducing)
        self.transport.registerProducer(producer, streaming=True)

    @override
    def data_received(self, data: bytes) -> None:
        if not self.other.is_closed:
            relay = self.relay
            if not self.received:
                relay.side_began(self, data)
            self.received += len(data)
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
        if below_tls(self.transport) is self.transport:
            self.transport.loseWriteConnection()
        else:
            # Twisted's TLS cannot half-close: its close-notify is the half-close, and what the peer sends after it is
            # still delivered.
            self.transport.loseConnection()

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
    def unacknowledged(self) -> float:
        bottom = below_tls(self.transport)
        queued = unacknowledged_by(socket_below(bottom))
        if queued and getattr(bottom, "_writeDisconnected", False):
            queued -= 1  # the FIN
        # A failed write may have dropped bytes.
        return max(unsent_bytes(bottom) + queued, getattr(bottom, "_broken", False))

    def _measure_loss(self, bottom: Any, reason: Failure) -> None:
        if vars(bottom).pop("connectionLost", None) and reason.type is ConnectionLost:
            self.unacknowledged_at_reset = self.unacknowledged()
        bottom.connectionLost(reason)

    @override
    def unanswered(self) -> UnansweredBytes:
        return ANSWERED if self.is_closed else unanswered_by(socket_below(self.transport))

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


_BURST = 0.1  # seconds; what is not used in this time is lost
_TICK = 0.02  # seconds; shorter would cost more, and longer would be felt


@frozen
class RelayRates:
    """How fast a connection may be to and from the server, in bytes per second; ``None`` means no limit."""

    upload: int | None = None
    download: int | None = None

    def make_sides(
        self, clock: IReactorTime, client: Peer, server: Peer
    ) -> tuple[PortableSide, PortableSide]:
        return _make_side(clock, client, self.download), _make_side(clock, server, self.upload)


def _make_side(clock: IReactorTime, peer: Peer, rate: int | None) -> PortableSide:
    return PortableSide(peer) if rate is None else _PacedSide(clock, peer, rate)


class _PacedSide(PortableSide):
    __slots__ = ("_paced",)

    def __init__(self, clock: IReactorTime, peer: Peer, rate: int) -> None:
        super().__init__(peer)
        paced: Any = Paced(clock, peer.transport, rate)
        self.transport = self._paced = paced

    def connection_lost(self, reason: Failure) -> None:
        self._paced.discard_held()
        super().connection_lost(reason)

    def unsent(self) -> int:
        held: int = self._paced.count_held()
        return held + super().unsent()

    def unacknowledged(self) -> float:
        held: int = self._paced.count_held()
        return held + super().unacknowledged()


class Paced:
    """A transport that passes on what is written to it no faster than at a rate in bytes per second: a token bucket.

    What is too fast is held, and the producer paused. A half-close or a close is done after what is held.
    """

    def __init__(self, clock: IReactorTime, transport: IRelayTransport, rate: int) -> None:
        self._clock = clock
        self._transport: Any = transport
        self._rate = rate
        self._tick = max(_TICK, 1 / rate)
        # With less, what is earned while a timer is late would be lost.
        self._most = max(2.0, _BURST * rate)
        self._allowed = self._most
        self._counted_at = clock.seconds()
        self._held = bytearray()
        self._producer: Any = None
        self._producer_paused = False
        self._full = False
        self._timer: IDelayedCall | None = None
        self._end_call: Callable[[], object] | None = None
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def count_held(self) -> int:
        return len(self._held)

    def discard_held(self) -> None:
        self._held.clear()
        self._producer = None
        self._end_call = self._held.clear
        self._stop_waiting()

    def write(self, data: bytes) -> None:
        if self._end_call is None:
            self._held += data
            self._pass_on_due()

    def registerProducer(self, producer: interfaces.IPushProducer, streaming: bool) -> None:  # noqa: FBT001 - Twisted's signature
        self._producer = producer
        # Pausing the producer itself would stop reading from this transport.
        below = SideProducer(self._transport_filled, self._transport_emptied)
        self._transport.registerProducer(below, streaming)

    def unregisterProducer(self) -> None:
        self._producer = None
        self._full = False
        self._transport.unregisterProducer()
        self._pass_on_due()

    def loseWriteConnection(self) -> None:
        self._end_after_held(self._transport.loseWriteConnection)

    def loseConnection(self) -> None:
        self._end_after_held(self._transport.loseConnection)

    def abortConnection(self) -> None:
        self.discard_held()
        self._transport.abortConnection()

    def _transport_filled(self) -> None:
        self._full = True
        self._pause_or_resume()

    def _transport_emptied(self) -> None:
        self._full = False
        self._pass_on_due()

    def _end_after_held(self, end: Callable[[], object]) -> None:
        self._end_call = end
        if not self._held:
            end()

    def _pass_on_due(self) -> None:
        if self._timer is not None or self._full:
            return
        if self._held:
            now = self._clock.seconds()
            earned = (now - self._counted_at) * self._rate
            self._counted_at = now
            self._allowed = min(self._most, self._allowed + earned)
            count = min(len(self._held), int(self._allowed))
            self._allowed -= count
            due = bytes(self._held[:count])
            del self._held[:count]
            if self._held:
                self._timer = self._clock.callLater(self._tick, self._timer_expired)
            if due:
                self._transport.write(due)
            if not self._held and self._end_call is not None:
                self._end_call()
        self._pause_or_resume()

    def _timer_expired(self) -> None:
        self._timer = None
        self._pass_on_due()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause_or_resume(self) -> None:
        pause = self._full or bool(self._held)
        if self._producer is not None and pause != self._producer_paused:
            self._producer_paused = pause
            (self._producer.pauseProducing if pause else self._producer.resumeProducing)()
