"""A relay between two ends: handles half-closes, resets and timeouts, while its sides move the bytes."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.net.relay.interface import (
    DRAIN_POLL,
    LONGEST_DRAIN_POLL,
    RelayedBytes,
    RelayResult,
    RelayState,
    Timeouts,
)
from txmux.net.relay.peer_state import has_ended, keepalive_of, lost_after
from txmux.net.sockets.memory import MEMORY, OutOfMemory
from txmux.net.sockets.transport import socket_below
from txmux.telemetry.reasons import RelayReason
from txmux.transport import Keepalive

if TYPE_CHECKING:
    from txmux.net.relay.kernel import KernelSide

OnOver = Callable[[RelayResult], None]

GRACE = 0.05  # seconds after one peer's reset in which the other may close its connection, too
MAX_FINAL_BYTES = 128
"""The most bytes that may be lost to a reset that counts as late. TLS's close-notify (RFC 8446, section 6.1) has up to 85; most
answers have more."""
_STEPS = 32  # different timer lengths for adopted connections


def _ignore(_is_servers: bool, _data: bytes | memoryview) -> None: ...  # noqa: FBT001 - of a callback


_log = Logger()


class Relay:
    """Forwards bytes between two ends until both are closed, then reports its `RelayResult` once.

    It sends ``pending`` first, then each received byte exactly once and in order. The buffer for a slow reader is bounded.
    A half-close is passed on. A reset is passed on as a reset, once the other peer has acknowledged the bytes before it. At
    the end, no timer and no open descriptor is left.

    Args:
        on_over: Called once, when both ends are closed.
        sides: The client's side, whose end may be paused, and the server's. They forward nothing before `start`.
        keepalive: When a peer that leaves bytes unacknowledged is lost; with ``None``, the kernel decides.

    Attributes:
        ending: Whether one side is closed and the other is being closed.
        on_first_byte: Called at the first bytes of each peer, with whether they are the server's, and with them; without any, if a peer is the
            first to finish and has sent none. A relay that was adopted may call it for a peer that has sent bytes before.
    """

    __slots__ = (
        "_due_at", "_is_late", "_is_unseen", "_keepalive", "_max_duration_timer", "_on_over",
        "_peer_check_interval", "_reason", "_sides", "_since", "_unsent", "_waits_for_close", "client", "clock",
        "ending", "on_first_byte", "seconds", "server", "timeouts", "timer",
    )  # fmt: skip

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts,
        on_over: OnOver,
        sides: tuple[KernelSide, KernelSide],
        keepalive: Keepalive | None = None,
    ) -> None:
        self.clock = clock
        self.seconds = clock.seconds
        self.timeouts = timeouts
        self._on_over = on_over
        self._sides = self.client, self.server = client, server = sides
        client.relay = server.relay = self
        client.other, server.other = server, client
        self._keepalive, self._peer_check_interval = keepalive, lost_after(keepalive)
        self._reason: RelayReason | None = None
        # Whether a reset came when both peers had sent everything, so that no byte was lost; and whether that is still open, as it
        # depends on whether the other peer closes within `GRACE`.
        self._is_late = self._waits_for_close = False
        # A UNIX socket was aborted, which its peer cannot distinguish from a clean end.
        self._is_unseen = False
        self.timer: IDelayedCall | None = None
        self._max_duration_timer: IDelayedCall | None = None
        self._unsent: int | None = None
        self._since = self.seconds()
        self.ending = False
        self.on_first_byte: Callable[[bool, bytes | memoryview], object] = _ignore

    def start(self, pending: bytes, *, client_finished: bool) -> None:
        """Start forwarding; `pending` are bytes that the client has sent already."""
        client, server, longest = self.client, self.server, self.timeouts.max_duration
        try:
            client.start_forwarding(reading=not client_finished)
            server.start_forwarding(reading=True)
            if pending:
                server.write(pending)
            if server.is_closed:
                return
            self._set_timer(self.timeouts.idle)
            if longest is not None:
                self._max_duration_timer = self.clock.callLater(longest, self._reach_max_duration)
            if client_finished:
                client.peer_finished()
        except Exception:  # noqa: BLE001 - without a timer, the connections might never end
            _log.failure("a relay could not start")
            self.abort("error")

    # Moving to another relay, in this process or in another one.

    @property
    def is_movable(self) -> bool:
        return not self.ending and not any(side.is_layered for side in self._sides)

    def suspend(self) -> RelayState:
        """Stop using both sockets. Only if it `is_movable`; `resume` follows, or `detach` once another relay has the sockets."""
        sides = self._sides
        now = self.seconds()
        try:
            client, server = (
                side.suspend(max(0.0, now - max(self._since, side.last_byte_at))) for side in sides
            )
        except MemoryError:  # bytes may be lost
            MEMORY.report_shortage()
            self.abort("error")
            raise
        except Exception:
            for side in sides:
                side.resume()
            raise
        left = None
        if self._max_duration_timer is not None:
            left = max(0.0, self._max_duration_timer.getTime() - now)
            self._max_duration_timer.cancel()
            self._max_duration_timer = None
        self._stop_watching()
        return RelayState(client, server, max(0.0, now - self._last_byte_at()), left)

    def resume(self, state: RelayState) -> None:
        """Continue in this relay, from what `suspend` returned."""
        self._set_timers(state)
        for side in self._sides:
            side.resume()

    def detach(self) -> None:
        """Forget both connections, which another relay has; no result is reported."""
        for side in self._sides:
            side.detach()
        self._break_references()

    def adopt(self, state: RelayState) -> None:
        """Continue where another relay was suspended, on the same sockets."""
        sides = self._sides
        self._keepalive = keepalive = keepalive_of(*(side.transport for side in sides))
        self._peer_check_interval = lost_after(keepalive)
        try:
            for side, its in zip(sides, (state.client, state.server), strict=True):
                side.adopt(its)
            self._set_timers(state)
            for side in sides:
                side.resume()
        except Exception:  # noqa: BLE001 - as in `start`
            _log.failure("a relay could not continue")
            self.abort("error")

    def _set_timers(self, state: RelayState) -> None:
        now = self.seconds()
        self._since = now - state.quiet
        sides = (self.client, state.client), (self.server, state.server)
        for side, its in sides:
            if its.quiet is not None:
                side.last_byte_at = now - its.quiet
                self._since = min(self._since, side.last_byte_at)
        if state.left is not None:
            self._max_duration_timer = self.clock.callLater(state.left, self._reach_max_duration)
        # Thousands of relays are adopted at a time, and timers of equal length share a queue. A timer that is early is set again.
        left, step = self._due() - now, self._time_limit() / _STEPS
        self._set_timer(max(0.0, left // step * step or left))

    def relayed(self) -> RelayedBytes:
        return RelayedBytes(self.client.received, self.server.received, self._last_byte_at())

    def abort(self, reason: RelayReason) -> None:
        """End both connections now; bytes in transit are lost."""
        for side in self._begin_end(reason):
            self._abort_side(side)

    def _abort_side(self, side: KernelSide) -> None:
        if getattr(side.transport.getHandle(), "family", None) == socket.AF_UNIX:
            self._is_unseen = True
        side.abort()

    # What the sides report.

    def side_began(self, side: KernelSide, data: bytes | memoryview) -> None:
        self.on_first_byte(side is self.server, data)

    def side_finished(self, side: KernelSide) -> None:
        """Pass a half-close on, or end when both sides have finished."""
        other = side.other
        if other.is_closed:
            return  # this side is already closing
        if other.has_finished:
            self._close_both("done")
            return
        if not side.received:
            self.side_began(side, b"")
        other.half_close()
        if other.is_closed:
            return
        self._watch_from_now()

    def side_lost(self, side: KernelSide, reason: Failure) -> None:
        # The other side ends, too, once its peer has acknowledged all bytes for it.
        self._call_or_abort(self._side_lost, side, reason)

    def _call_or_abort(self, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except MemoryError:
            MEMORY.report_shortage()
            self.abort("error")  # otherwise nothing might ever end the other side

    def _side_lost(self, side: KernelSide, reason: Failure) -> None:
        other = side.other
        if reason.type is OutOfMemory and not other.is_closed:
            self.abort("error")  # the other side's buffer takes memory, too
            return
        clean = reason.type is ConnectionDone
        if self._reason is None:
            self._reason = "done" if clean else self._reason_for(side, reason)
            self._judge_reset(side)
        elif self._waits_for_close:
            self._is_late, self._waits_for_close = reason.type is not ConnectionAborted, False
        elif self._reason == "done" and not clean and side.unacknowledged_at_reset is not None:
            self._is_late = not MAX_FINAL_BYTES < side.unacknowledged_at_reset < math.inf
            self._reason = "done" if self._is_late else self._reason_for(side, reason)
        if other.is_closed:
            self._finish()
        elif not self.ending:
            self.ending = True
            complete = clean or side.has_finished
            if complete and not side.has_finished:
                if not (side.received or other.has_finished):
                    self.side_began(side, b"")
                other.half_close()
            # What the other side still sends has no reader.
            other.stop_reading()
            self._stop_watching()
            end = other.close if complete else partial(self._abort_side, other)
            if self._waits_for_close:
                self.timer = self.clock.callLater(GRACE, self.end_when_drained, other, end)
            else:
                self.end_when_drained(other, end)

    def _judge_reset(self, side: KernelSide) -> None:
        """Note whether a reset came when both peers had sent everything, or that this depends on the other peer's close.

        A reset discards what its sender has not sent yet, and only the sender knows whether there was any. So one peer must have
        finished, and the other have sent at most `MAX_FINAL_BYTES` since then.
        """
        other = side.other
        if side.unacknowledged_at_reset is None or other.is_closed:
            return
        first = next((end for end in (side, other) if end.has_finished), None)
        since = 0 if first is None else first.other.received - first.other.received_before_end
        if max(since, side.unacknowledged_at_reset, other.unacknowledged()) <= MAX_FINAL_BYTES:
            self._is_late = first is not None or has_ended(socket_below(other.transport))
            self._waits_for_close = not self._is_late

    def end_when_drained(
        self, side: KernelSide, end: Callable[[], None], paused: float = DRAIN_POLL / 2
    ) -> None:
        """End a side when its peer has acknowledged everything: a reset, or a close with unread bytes, discards bytes in transit."""
        self.timer = None
        if self._waits_for_close:
            self._waits_for_close = False
            self._is_late = not side.is_closed and has_ended(socket_below(side.transport))
        self._call_or_abort(self._end_if_drained, side, end, paused)

    def _end_if_drained(self, side: KernelSide, end: Callable[[], None], paused: float) -> None:
        # The other side is closed. This one ends when its peer has acknowledged everything, and is aborted after `half_close`
        # without progress. Until then it is polled, since no event reports an acknowledgement.
        if side.is_closed:
            return
        has_progress = self._update_unsent()
        now = self.seconds()
        pause = min(2 * paused, LONGEST_DRAIN_POLL)
        if has_progress:
            self._since = now
        if self._unsent == 0:
            end()
            self._watch()
        elif not has_progress and now - self._last_byte_at() >= self.timeouts.half_close:
            self._abort_side(side)
        else:
            self.timer = self.clock.callLater(pause, self.end_when_drained, side, end, pause)

    def _close_both(self, reason: RelayReason) -> None:
        """Close each side once its buffer is empty; a peer that does not read everything within `half_close` is aborted."""
        for side in self._begin_end(reason):
            side.close_when_sent()
        self._watch_from_now()

    def _begin_end(self, reason: RelayReason) -> Iterator[KernelSide]:
        """Note why the relay ends; returns the sides that are not closed by then."""
        self._reason = self._reason or reason
        self._waits_for_close = False
        self.ending = True
        return (side for side in self._sides if not side.is_closed)

    def _reason_for(self, side: KernelSide, failure: Failure) -> RelayReason:
        if failure.type is OutOfMemory:
            return "error"
        if failure.check(ConnectionClosed) or failure.type.__module__.startswith("OpenSSL"):
            return "client-reset" if side is self.client else "server-reset"
        return "error"

    def _finish(self) -> None:
        self._stop_watching()
        if self._max_duration_timer is not None:
            self._max_duration_timer.cancel()
            self._max_duration_timer = None
        reset: Any = "late" if self._is_late else "unseen" if self._is_unseen else ""
        received = self.client.received, self.server.received
        result = RelayResult(self._reason or "error", *received, reset)
        on_over = self._on_over
        self._break_references()
        on_over(result)

    def _break_references(self) -> None:
        """Break the reference cycles, so that the objects are freed without the garbage collector."""
        for side in self._sides:
            del side.other, side.relay
        del self._on_over, self.on_first_byte

    def _watch_from_now(self) -> None:
        if self.client.is_closed and self.server.is_closed:
            return
        self._since = self.seconds()
        # Not computed from points in time, so that all timers have exactly the same length and share a queue.
        self._set_timer(self._time_limit())

    def _reach_max_duration(self) -> None:
        self._max_duration_timer = None
        self.abort("max-duration")

    def _watch(self) -> None:
        if not (self.client.is_closed and self.server.is_closed):
            self._set_timer(max(0.0, self._due() - self.seconds()))

    def _set_timer(self, delay: float) -> None:
        self._due_at = self.seconds() + delay
        delay = min(delay, self._peer_check_interval)
        if self.timer is None:
            self.timer = self.clock.callLater(delay, self._timer_expired)
        else:
            self.timer.reset(delay)

    def _stop_watching(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _time_limit(self) -> float:
        return self.timeouts.half_close if self._is_closing() else self.timeouts.idle

    def _is_closing(self) -> bool:
        return self.ending or self.client.has_finished or self.server.has_finished

    def _last_byte_at(self) -> float:
        return max(self._since, self.client.last_byte_at, self.server.last_byte_at)

    def _due(self) -> float:
        return self._last_byte_at() + self._time_limit()

    def check_peers(self) -> None:
        """Check for lost peers now rather than when the timer expires."""
        self._stop_watching()
        self._timer_expired()

    def _timer_expired(self) -> None:
        self.timer = None
        self._call_or_abort(self._check_peers_and_timers)

    def _check_peers_and_timers(self) -> None:
        lost = self._find_lost_side()
        if lost is not None:
            lost.abort()
            if self.timer is None:
                self._watch()
            return
        left = self._due_at - self.seconds()
        if left > 0:
            self._set_timer(left)
        else:
            self._check()

    def _find_lost_side(self) -> KernelSide | None:
        keepalive = self._keepalive
        if keepalive is None:
            return None
        self._peer_check_interval = lost_after(keepalive)
        for side in self._sides:
            unanswered = side.unanswered()
            if unanswered.is_lost(keepalive):
                return side
            self._peer_check_interval = min(self._peer_check_interval, unanswered.pause(keepalive))
        return None

    def _check(self) -> None:
        """Close the connections after a timeout, or set the timer for the next one.

        Bytes received since the timer was set postpone the timeout, and so does a peer that reads bytes sent to it before.
        """
        now = self.seconds()
        if self._update_unsent():
            self._since = now
        if self._due() > now:
            self._watch()
        elif self.ending:
            self.abort(self._reason or "error")
        elif self.client.has_finished or self.server.has_finished:
            self._close_both("half-close-timeout")
        else:
            self._close_both("idle-timeout")

    def _update_unsent(self) -> bool:
        """Sum up the unsent bytes of both sides; return whether the sum is not 0 and has changed."""
        before = self._unsent
        self._unsent = sum(side.unsent() for side in self._sides if not side.is_closed)
        return self._unsent > 0 and self._unsent != before
