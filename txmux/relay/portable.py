"""A relay over any transport: each side is the other's streaming producer."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from twisted.internet import interfaces
from twisted.internet.error import ConnectionDone
from zope.interface import implementer

from txmux.relay.interface import AbortReason, Reason, RelayResult, Timeouts
from txmux.relay.progress import unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from txmux.relay.ends import End, IRelayTransport

__all__ = ["PortableRelay"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


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
        self._backlog = [0, 0]

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

    def abort(self, reason: AbortReason) -> None:
        """End both connections at once; see `Relay.abort`."""
        self._abort(reason)

    def _abort(self, reason: Reason) -> None:
        self._reason = self._reason or reason
        for side in (self._client, self._server):
            if not side.gone:
                side.stop_writing_for_other()
                side.transport.abortConnection()

    # What the sides report.

    def touch(self) -> None:
        """Note that a byte has come."""
        self._last_byte_at = self._clock.seconds()

    def side_finished(self, side: _Side) -> None:
        """Pass a half-close on, or end when both sides have finished."""
        other = side.other
        if other.has_finished:
            self._close_both("done")
            return
        other.stop_writing_for_other()
        other.half_close()
        self._last_byte_at = self._clock.seconds()
        self._watch()

    def side_lost(self, side: _Side, reason: Failure) -> None:
        """Let the other side have what is left for it, and end."""
        clean = reason.check(ConnectionDone) is not None
        if self._reason is None:
            # A server that had sent all and then resets only refuses what its client still says, such as
            # the goodbye of TLS. A client that does so has not waited for the answer.
            answered = side is self._server and side.has_finished
            self._reason = "done" if clean or answered else side.reset_reason
        other = side.other
        if other.gone:
            self._over()
        elif clean or side.has_finished:
            side.finished()
            if not other.has_finished:
                # Nobody is left to read what it still sends, but a socket that is closed over unread bytes resets
                # the connection, and what is on its way to the peer would be lost.
                other.transport.resumeProducing()
        else:
            other.stop_writing_for_other()
            other.close_as_reset()
            self._watch()

    def _close_both(self, reason: Reason) -> None:
        """Close each side once its buffer is empty. Whoever does not read it empty in time is cut off."""
        self._reason = self._reason or reason
        self._last_byte_at = self._clock.seconds()
        for side in (self._client, self._server):
            side.has_finished = True
            if not side.gone:
                side.stop_writing_for_other()
                side.transport.loseConnection()
        self._watch()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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

    def _patience(self) -> float:
        half_closed = self._client.has_finished or self._server.has_finished
        return self._timeouts.half_close if half_closed else self._timeouts.idle

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        longest = self._timeouts.max_duration
        if longest is not None and now - self._started_at >= longest:
            self._abort("max-duration")
        elif now - self._last_byte_at < self._patience() or self._still_sending():
            self._watch()
        elif self._reason is not None:
            self._abort(self._reason)
        elif self._client.has_finished or self._server.has_finished:
            self._close_both("half-close-timeout")
        else:
            self._close_both("idle-timeout")

    def _still_sending(self) -> bool:
        """Tell whether a slow reader has taken something since this was last asked; if so, wait on."""
        backlog = [
            0 if side.gone else unsent(side.transport) for side in (self._client, self._server)
        ]
        moved = backlog != self._backlog
        self._backlog = backlog
        if moved:
            self._last_byte_at = self._clock.seconds()
        return moved


class _Side:
    """One end as the relay sees it; the receiver of that end. Implements `txmux.relay.ends.Receiver`."""

    __slots__ = (
        "_relay",
        "gone",
        "has_finished",
        "other",
        "received",
        "reset_reason",
        "transport",
    )

    other: _Side

    def __init__(self, relay: PortableRelay, end: End, reset_reason: Reason) -> None:
        self._relay = relay
        self.transport: IRelayTransport = end.transport
        self.reset_reason = reset_reason
        self.received = 0
        self.has_finished = False
        self.gone = False

    def data(self, data: bytes) -> None:
        """Pass bytes to the other side."""
        self.received += len(data)
        if not self.other.gone:
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

    def close_as_reset(self) -> None:
        """Make this side's close a reset, so that its peer cannot take a broken stream for a complete one."""
        handle = self.transport.getHandle()
        if not isinstance(handle, socket.socket):
            # TLS says goodbye whenever it closes in good order; what is still unsent is the price of not doing so.
            self.transport.abortConnection()
        else:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # Twisted shuts a socket down before it closes it, and the FIN of that would come before the reset.
            self.transport._shouldShutdown = False  # type: ignore[attr-defined]
            self.transport.loseConnection()


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
