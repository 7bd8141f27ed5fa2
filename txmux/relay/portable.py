"""A relay over any transport: each side is the other's streaming producer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import interfaces
from twisted.internet.error import ConnectionClosed, ConnectionDone
from zope.interface import implementer

from txmux.relay.interface import Reason, RelayResult, Timeouts
from txmux.relay.progress import unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from txmux.relay.ends import End, IRelayTransport

__all__ = ["PortableRelay"]

_TAKEN_YET = 0.05  # seconds between two looks at whether a peer has taken all it was sent


class PortableRelay:
    """Relays through the transports' own buffers. Implements `txmux.relay.interface.Relay`.

    Args:
        clock: Gives the time and the timers.
        timeouts: When to give up.
        on_over: Called once, when both ends are gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts,
        on_over: Callable[[RelayResult], None],
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._on_over = on_over
        self._reason: Reason | None = None
        self._timer: IDelayedCall | None = None
        self._ending = False
        self._unsent: int | None = None

    def start(self, client: End, server: End, pending: bytes, *, client_finished: bool) -> None:
        """Take both ends over; see `Relay.start`."""
        self._last_byte_at = self._started_at = self._clock.seconds()
        self._client = upstream = _Side(self, client, "client-reset")
        self._server = downstream = _Side(self, server, "server-reset")
        upstream.other, downstream.other = downstream, upstream
        # Both are registered before the first byte is forwarded: without a producer to pause,
        # a transport's buffer has no bound.
        if not client_finished:
            client.transport.resumeProducing()
        for side in (upstream, downstream):
            side.transport.registerProducer(_Throttle(side.other.transport), streaming=True)
        client.receiver, server.receiver = upstream, downstream
        if pending:
            downstream.transport.write(pending)
        self._watch()
        if client_finished:
            upstream.finished()

    def abort(self, reason: Reason) -> None:
        """End both connections at once; see `Relay.abort`."""
        self._reason = self._reason or reason
        for side in (self._client, self._server):
            if not side.gone:
                side.stop_writing_for_other()
                side.transport.abortConnection()

    # What the sides report.

    def touch(self) -> None:
        """Note that a byte has come."""
        if not self._ending:
            self._last_byte_at = self._clock.seconds()

    def side_finished(self, side: _Side) -> None:
        """Pass a half-close on, or end when both sides have finished."""
        other = side.other
        if other.gone:
            return  # this side is being ended already
        if other.has_finished:
            self._close_both("done")
            return
        other.stop_writing_for_other()
        other.half_close()
        self._last_byte_at = self._clock.seconds()
        self._watch()

    def side_lost(self, side: _Side, reason: Failure) -> None:
        """End the other side too, once its peer has taken what is left for it."""
        other = side.other
        clean = reason.check(ConnectionDone) is not None
        if self._reason is None:
            # Who resets after both have said all only wants to be rid of the connection.
            clean_end = clean or (side.has_finished and other.has_finished)
            self._reason = "done" if clean_end else side.reason_for(reason)
        if other.gone:
            self._over()
        elif not self._ending:
            self._ending = True
            other.stop_writing_for_other()
            complete = clean or side.has_finished
            if complete and not side.has_finished:
                other.half_close()
            # Nobody is left to read what the other side still sends.
            other.transport.pauseProducing()
            self._stop_watching()
            self._end_when_taken(
                other, other.close if complete else other.transport.abortConnection
            )

    def _end_when_taken(self, side: _Side, end: Callable[[], None]) -> None:
        """End a side as soon as its peer has taken all that it was sent.

        To reset a connection throws away what is still on its way, and so does to close one over unread bytes.
        """
        self._timer = None
        moved = self._still_sending()
        now = self._clock.seconds()
        if self._has_lasted_too_long(now):
            self.abort("max-duration")
            return
        if moved:
            self._last_byte_at = now
        if self._unsent == 0:
            end()
            self._watch()
        elif not moved and now - self._last_byte_at >= self._timeouts.half_close:
            side.transport.abortConnection()
        else:
            self._timer = self._clock.callLater(_TAKEN_YET, self._end_when_taken, side, end)

    def _close_both(self, reason: Reason) -> None:
        """Close each side once its buffer is empty. Whoever does not read it empty in time is cut off."""
        self._reason = self._reason or reason
        self._ending = True
        self._last_byte_at = self._clock.seconds()
        for side in (self._client, self._server):
            if not side.gone:
                side.stop_writing_for_other()
                side.transport.loseConnection()
        self._watch()

    def _over(self) -> None:
        self._stop_watching()
        self._on_over(
            RelayResult(self._reason or "error", self._client.received, self._server.received)
        )

    # Time.

    def _watch(self) -> None:
        """Set the timer to the next moment at which something may have taken too long."""
        if self._client.gone and self._server.gone:
            return
        at = self._last_byte_at + self._patience()
        if self._timeouts.max_duration is not None:
            at = min(at, self._started_at + self._timeouts.max_duration)
        delay = max(0.0, at - self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._check)
        else:
            self._timer.reset(delay)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _patience(self) -> float:
        closing = self._ending or self._client.has_finished or self._server.has_finished
        return self._timeouts.half_close if closing else self._timeouts.idle

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        quiet = now - self._last_byte_at >= self._patience()
        if self._has_lasted_too_long(now):
            self.abort("max-duration")
        elif self._still_sending() and quiet:
            # A slow reader has taken something meanwhile.
            self._last_byte_at = now
            self._watch()
        elif not quiet:
            self._watch()
        elif self._ending:
            self.abort(self._reason or "error")
        elif self._client.has_finished or self._server.has_finished:
            self._close_both("half-close-timeout")
        else:
            self._close_both("idle-timeout")

    def _has_lasted_too_long(self, now: float) -> bool:
        longest = self._timeouts.max_duration
        return longest is not None and now - self._started_at >= longest

    def _still_sending(self) -> bool:
        """Tell whether the peers have something to take, and have taken some since this was last asked."""
        sides = (self._client, self._server)
        before = self._unsent
        self._unsent = sum(unsent(side.transport) for side in sides if not side.gone)
        return self._unsent > 0 and self._unsent != before


class _Side:
    """One end as the relay sees it; the receiver of that end. Implements `txmux.relay.ends.Receiver`."""

    __slots__ = (
        "_relay",
        "_reset_reason",
        "gone",
        "has_finished",
        "other",
        "received",
        "transport",
    )

    other: _Side

    def __init__(self, relay: PortableRelay, end: End, reset_reason: Reason) -> None:
        self._relay = relay
        self.transport: IRelayTransport = end.transport
        self._reset_reason = reset_reason
        self.received = 0
        self.has_finished = False
        self.gone = False

    def data(self, data: bytes) -> None:
        """Pass bytes to the other side."""
        if not self.other.gone:
            self.received += len(data)
            self._relay.touch()
            self.other.transport.write(data)

    def finished(self) -> None:
        """Note that this side's peer sends no more."""
        if self.has_finished:
            return
        self.has_finished = True
        self._relay.side_finished(self)

    def lost(self, reason: Failure) -> None:
        """Note that this side is gone."""
        self.gone = True
        self._relay.side_lost(self, reason)

    def stop_writing_for_other(self) -> None:
        """Let this transport close when it is told to.

        With a producer registered it would never do so once its buffer is full, and TLS would not even begin.
        """
        self.transport.unregisterProducer()

    def half_close(self) -> None:
        """Tell this side's peer that the other will send no more."""
        if interfaces.ISSLTransport.providedBy(self.transport):
            # TLS cannot shut one direction of the TCP connection: its close-notify is the half-close, and what
            # the peer still sends is still delivered.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close this side in good order."""
        if interfaces.ISSLTransport.providedBy(self.transport):
            self.transport.resumeProducing()  # TLS waits for the goodbye of the other side
        self.transport.loseConnection()

    def reason_for(self, failure: Failure) -> Reason:
        """Say why this side was lost, which was not in good order."""
        broken = failure.check(ConnectionClosed) or failure.type.__module__.startswith("OpenSSL")
        return self._reset_reason if broken else "error"


@implementer(interfaces.IPushProducer)
class _Throttle:
    """Slows one side down when the other cannot keep up; ending it is the relay's business alone."""

    __slots__ = ("_transport",)

    def __init__(self, transport: IRelayTransport) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        """Stop reading."""
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the relay hears of the loss itself, and by then knows its reason."""
