"""A relay between two ends: what follows from an end, a loss or a silence, independent of what carries the bytes."""

from __future__ import annotations

import abc
import math
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.net.relay.interface import RelayedBytes, RelayResult, RelayState, SideState, Timeouts
from txmux.net.relay.peer import UnansweredBytes, has_ended, keepalive_of, patience
from txmux.net.sockets.memory import MEMORY, OutOfMemory
from txmux.transport import Keepalive

if TYPE_CHECKING:
    from txmux.telemetry.reasons import RelayReason

    OnOver = Callable[[RelayResult], None]

_DRAIN_POLL_INTERVAL = 0.05
"""Seconds until it is first checked again whether a peer has taken everything; doubled each time."""
_MAX_DRAIN_POLL_INTERVAL = 1.0
_GRACE = 0.05  # seconds until a peer that ends has closed its connection, too
_FAREWELL = 128
"""The most bytes of a peer's last words: TLS's close-notify (RFC 8446, section 6.1) has up to 85, most answers have more."""
_STEPS = 32  # lengths of timers of connections that have been moved

_log = Logger()


class RelaySide(abc.ABC):
    """One end as its relay sees it; implements `EndReceiver`, and becomes that end's receiver when its relay is made.

    Attributes:
        received: Bytes that came from its peer and were passed on.
        before_end: How many of them had come when the other side's peer finished sending.
        last_byte_at: When the last of them came, in the relay's seconds. Updated while the relay is not `Relay.ending`.
        refused: What was `unacknowledged` when its peer reset the connection; ``None`` if it has not.
    """

    __slots__ = (
        "before_end", "has_finished", "is_closed", "last_byte_at", "other",
        "received", "refused", "relay",
    )  # fmt: skip

    relay: Relay
    other: RelaySide
    transport: Any

    def __init__(self) -> None:
        self.received = self.before_end = 0
        self.refused: float | None = None
        self.last_byte_at = 0.0
        self.has_finished = False
        self.is_closed = False

    # What comes from its peer.

    @abc.abstractmethod
    def data_received(self, data: bytes) -> None: ...

    def peer_finished(self) -> None:
        if not self.has_finished:
            self.has_finished = True
            self.other.before_end = self.other.received
            self.relay.side_finished(self)

    def connection_lost(self, reason: Failure) -> None:
        self.is_closed = True
        self.relay.side_lost(self, reason)

    # What the relay calls.

    @abc.abstractmethod
    def start_carrying(self, *, reading: bool) -> None: ...

    @abc.abstractmethod
    def write(self, data: bytes) -> None: ...  # before what comes from the other side

    @abc.abstractmethod
    def stop_reading(self) -> None: ...  # for good

    @abc.abstractmethod
    def half_close(self) -> None: ...  # after all that is held

    @abc.abstractmethod
    def close(self) -> None: ...  # cleanly; its peer has taken everything

    @abc.abstractmethod
    def close_when_sent(self) -> None: ...  # cleanly, after all that is held

    @abc.abstractmethod
    def abort(self) -> None: ...

    @abc.abstractmethod
    def unsent(self) -> int: ...

    @abc.abstractmethod
    def unacknowledged(self) -> float:
        """Count the bytes that its peer has not acknowledged, reset or not; infinite is unknown."""

    @abc.abstractmethod
    def unanswered(self) -> UnansweredBytes: ...


class MovableSide(RelaySide):
    """One end that can be moved to another relay."""

    __slots__ = ("transport",)

    transport: tcp.Connection

    @abc.abstractmethod
    def suspend(self, quiet: float) -> SideState:
        """Leave the socket alone; `quiet` are the seconds since its peer's last byte."""

    @abc.abstractmethod
    def adopt(self, state: SideState) -> None: ...

    @abc.abstractmethod
    def resume(self) -> None: ...

    @abc.abstractmethod
    def let_go(self) -> None: ...


class Relay:
    """Carries bytes between two ends until both are closed, then reports its `RelayResult` once.

    It sends ``pending`` first, then every byte that comes, each exactly once and in order; holds a bounded
    number of bytes for a side that does not read; passes a half-close on, and a reset as a reset, once the other peer
    has taken the bytes that came before it; and leaves no timer and no open descriptor behind.

    Args:
        on_over: Called once, when both ends are closed.
        sides: Carry the bytes at the client's end, which may be paused, and at the server's; nothing moves yet.
        keepalive: When a peer that leaves bytes unanswered counts as gone; ``None`` leaves that to the system.

    Attributes:
        ending: Whether one side is closed and the other is being closed.
    """

    __slots__ = (
        "_client", "_clock", "_due_at", "_is_late", "_is_unseen", "_keepalive",
        "_max_duration_timer", "_on_over", "_peer_check_interval", "_reason", "_server", "_since",
        "_timer", "_unsent", "ending", "seconds", "timeouts",
    )  # fmt: skip

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts,
        on_over: OnOver,
        sides: tuple[RelaySide, RelaySide],
        keepalive: Keepalive | None = None,
    ) -> None:
        self._clock = clock
        self.seconds = clock.seconds
        self.timeouts = timeouts
        self._on_over = on_over
        self._client, self._server = client, server = sides
        client.relay = server.relay = self
        client.other, server.other = server, client
        self._keepalive, self._peer_check_interval = keepalive, patience(keepalive)
        self._reason: RelayReason | None = None
        # A peer reset its connection, which cut nothing; or not if the other one is still there.
        self._is_late: bool | None = False
        self._is_unseen = False  # a connection was broken off whose peer cannot tell
        self._timer: IDelayedCall | None = None
        self._max_duration_timer: IDelayedCall | None = None
        self._unsent: int | None = None
        self.ending = False

    def start(self, pending: bytes, *, client_finished: bool) -> None:
        """Carry bytes from now on, first those that the client has sent already."""
        self._since = self.seconds()
        client, server, longest = self._client, self._server, self.timeouts.max_duration
        try:
            # Both can be held back before the first byte is forwarded: without that a transport's buffer has no bound.
            client.start_carrying(reading=not client_finished)
            server.start_carrying(reading=True)
            if pending:
                server.write(pending)
            if server.is_closed:
                return
            self._set_timer(self.timeouts.idle)
            if longest is not None:
                self._max_duration_timer = self._clock.callLater(longest, self._reach_max_duration)
            if client_finished:
                client.peer_finished()
        except Exception:  # noqa: BLE001 - no pair may be left that nothing ends
            _log.failure("a relay could not start")
            self.abort("error")

    # Moving to another relay, in this process or in another one. Only kernel sides can be moved.

    def _movable(self) -> list[MovableSide]:
        return [side for side in (self._client, self._server) if isinstance(side, MovableSide)]

    @property
    def is_movable(self) -> bool:
        """Whether it can be moved, since its bytes do not pass through transports and it is not ending."""
        return not self.ending and isinstance(self._client, MovableSide)

    def suspend(self) -> RelayState:
        """Leave both sockets alone, if it `is_movable`; next is `resume`, or `let_go` when another relay has them."""
        sides = self._movable()
        now = self.seconds()
        try:
            client, server = (
                side.suspend(max(0.0, now - self._last_received_at(side))) for side in sides
            )
        except MemoryError:  # bytes may be missing
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
        """Continue after all, from what `suspend` returned."""
        self._set_timers(state)
        for side in self._movable():
            side.resume()

    def let_go(self) -> None:
        """Forget both connections, which another relay has now; no end is reported."""
        for side in self._movable():
            side.let_go()
        self._break_references()

    def adopt(self, state: RelayState) -> None:
        """Continue where another relay was suspended, on the same sockets."""
        sides = self._movable()
        self._keepalive = keepalive = keepalive_of(*(side.transport for side in sides))
        self._peer_check_interval = patience(keepalive)
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
        sides = (self._client, state.client), (self._server, state.server)
        for side, its in sides:
            if its.quiet is not None:
                side.last_byte_at = now - its.quiet
                self._since = min(self._since, side.last_byte_at)
        if state.left is not None:
            self._max_duration_timer = self._clock.callLater(state.left, self._reach_max_duration)
        # Thousands come at a time, and timers of few lengths cost less. One that rings too early is set again.
        left, step = self._due() - now, self._patience() / _STEPS
        self._set_timer(max(0.0, left // step * step or left))

    def relayed(self) -> RelayedBytes:
        return RelayedBytes(self._client.received, self._server.received, self._last_byte_at())

    def abort(self, reason: RelayReason) -> None:
        """End both connections at once; bytes on their way are lost."""
        self._reason = self._reason or reason
        self._is_late = bool(self._is_late)
        self.ending = True
        for side in (self._client, self._server):
            if not side.is_closed:
                self._break_off(side)

    def _break_off(self, side: RelaySide) -> None:
        if getattr(side.transport.getHandle(), "family", None) == socket.AF_UNIX:
            self._is_unseen = True
        side.abort()

    # What the sides report.

    def side_finished(self, side: RelaySide) -> None:
        """Pass a half-close on, or end when both sides have finished."""
        other = side.other
        if other.is_closed:
            return  # this side is being ended already
        if other.has_finished:
            self._close_both("done")
            return
        other.half_close()
        if other.is_closed:
            return
        self._watch_from_now()

    def side_lost(self, side: RelaySide, reason: Failure) -> None:
        """End the other side too, once its peer has taken what is left for it."""
        self._call_or_abort(self._side_lost, side, reason)

    def _call_or_abort(self, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except MemoryError:
            MEMORY.report_shortage()
            self.abort("error")  # or nothing might ever end what is left

    def _side_lost(self, side: RelaySide, reason: Failure) -> None:
        other = side.other
        if reason.type is OutOfMemory and not other.is_closed:
            self.abort("error")  # what is held for the other side's peer takes memory, too
            return
        clean = reason.type is ConnectionDone
        if self._reason is None:
            self._reason = "done" if clean else self._reason_for(side, reason)
            self._is_late = self._comes_late(side)
        elif self._is_late is None:
            self._is_late = reason.type is not ConnectionAborted
        elif self._reason == "done" and not clean and side.refused is not None:
            self._is_late = not _FAREWELL < side.refused < math.inf
            self._reason = "done" if self._is_late else self._reason_for(side, reason)
        if other.is_closed:
            self._finish()
        elif not self.ending:
            self.ending = True
            complete = clean or side.has_finished
            if complete and not side.has_finished:
                other.half_close()
            # What the other side still sends has no reader.
            other.stop_reading()
            self._stop_watching()
            end = other.close if complete else partial(self._break_off, other)
            if self._is_late is None:
                self._timer = self._clock.callLater(_GRACE, self._end_when_taken, other, end)
            else:
                self._end_when_taken(other, end)

    def _comes_late(self, side: RelaySide) -> bool | None:
        """Return whether a reset comes when both have said all; ``None`` if that depends on whether the other peer ends now, too.

        A reset discards what its sender has yet to send, which only that one knows. So one peer must have finished, and the other
        one have sent no more than a farewell since then.
        """
        other = side.other
        if side.refused is None or other.is_closed:
            return False
        first = next((end for end in (side, other) if end.has_finished), None)
        since = 0 if first is None else first.other.received - first.other.before_end
        if max(since, side.refused, other.unacknowledged()) > _FAREWELL:
            return False
        return first is not None or has_ended(other.transport.getHandle()) or None

    def _end_when_taken(
        self, side: RelaySide, end: Callable[[], None], paused: float = _DRAIN_POLL_INTERVAL / 2
    ) -> None:
        """End a side when its peer has taken everything: a reset, or closing with unread bytes, discards what is on its way."""
        self._timer = None
        if self._is_late is None:
            self._is_late = not side.is_closed and has_ended(side.transport.getHandle())
        self._call_or_abort(self._end_if_taken, side, end, paused)

    def _end_if_taken(self, side: RelaySide, end: Callable[[], None], paused: float) -> None:
        # The other side is closed. This one ends when its peer has taken everything, is aborted when the peer has taken nothing
        # for `half_close`, and else is looked at again later.
        if side.is_closed:
            return
        has_progress = self._update_unsent()
        now = self.seconds()
        pause = min(2 * paused, _MAX_DRAIN_POLL_INTERVAL)
        if has_progress:
            self._since = now
        if self._unsent == 0:
            end()
            self._watch()
        elif not has_progress and now - self._last_byte_at() >= self.timeouts.half_close:
            self._break_off(side)
        else:
            self._timer = self._clock.callLater(pause, self._end_when_taken, side, end, pause)

    def _close_both(self, reason: RelayReason) -> None:
        """Close each side once its buffer is empty. A peer that does not read all in time is cut off."""
        self._reason = self._reason or reason
        self._is_late = bool(self._is_late)
        self.ending = True
        for side in (self._client, self._server):
            if not side.is_closed:
                side.close_when_sent()
        self._watch_from_now()

    def _reason_for(self, side: RelaySide, failure: Failure) -> RelayReason:
        if failure.type is OutOfMemory:
            return "error"
        if failure.check(ConnectionClosed) or failure.type.__module__.startswith("OpenSSL"):
            return "client-reset" if side is self._client else "server-reset"
        return "error"

    def _finish(self) -> None:
        self._stop_watching()
        if self._max_duration_timer is not None:
            self._max_duration_timer.cancel()
            self._max_duration_timer = None
        client, server = self._client, self._server
        reset: Any = "late" if self._is_late else "unseen" if self._is_unseen else ""
        received = client.received, server.received
        result = RelayResult(self._reason or "error", *received, reset)
        on_over = self._on_over
        self._break_references()
        on_over(result)

    def _break_references(self) -> None:
        """Delete the references between relay and sides, which only the garbage collector would free."""
        for side in (self._client, self._server):
            del side.other, side.relay
        del self._on_over

    def _watch_from_now(self) -> None:
        if self._client.is_closed and self._server.is_closed:
            return
        self._since = self.seconds()
        # No sum and difference of times, so that all connections' timers are of one length.
        self._set_timer(self._patience())

    def _reach_max_duration(self) -> None:
        self._max_duration_timer = None
        self.abort("max-duration")

    def _watch(self) -> None:
        if not (self._client.is_closed and self._server.is_closed):
            self._set_timer(max(0.0, self._due() - self.seconds()))

    def _set_timer(self, delay: float) -> None:
        self._due_at = self.seconds() + delay
        delay = min(delay, self._peer_check_interval)
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._timer_rang)
        else:
            self._timer.reset(delay)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _patience(self) -> float:
        return self.timeouts.half_close if self._is_closing() else self.timeouts.idle

    def _is_closing(self) -> bool:
        return self.ending or self._client.has_finished or self._server.has_finished

    def _last_received_at(self, side: RelaySide) -> float:
        return max(self._since, side.last_byte_at)

    def _last_byte_at(self) -> float:
        return max(self._since, self._client.last_byte_at, self._server.last_byte_at)

    def _due(self) -> float:
        return self._last_byte_at() + self._patience()

    def check_peers(self) -> None:
        """Check for lost peers now instead of at the next timer."""
        self._stop_watching()
        self._timer_rang()

    def _timer_rang(self) -> None:
        self._timer = None
        self._call_or_abort(self._check_peers_and_timers)

    def _check_peers_and_timers(self) -> None:
        lost = self._find_lost_side()
        if lost is not None:
            lost.abort()
            if self._timer is None:
                self._watch()
            return
        left = self._due_at - self.seconds()
        if left > 0:
            self._set_timer(left)
        else:
            self._check()

    def _find_lost_side(self) -> RelaySide | None:
        keepalive = self._keepalive
        if keepalive is None:
            return None
        self._peer_check_interval = patience(keepalive)
        for side in (self._client, self._server):
            unanswered = side.unanswered()
            if unanswered.is_lost(keepalive):
                return side
            self._peer_check_interval = min(self._peer_check_interval, unanswered.pause(keepalive))
        return None

    def _check(self) -> None:
        """Close the connections whose time limit is over, or set the timer to the next limit.

        Bytes that came since the timer was set have put the limit off; so does a peer that takes bytes sent to it before.
        """
        now = self.seconds()
        if self._due() > now:
            self._update_unsent()  # progress counts from here
            self._watch()
            return
        if self._update_unsent():
            self._since = now
            self._watch()
        elif self.ending:
            self.abort(self._reason or "error")
        elif self._client.has_finished or self._server.has_finished:
            self._close_both("half-close-timeout")
        else:
            self._close_both("idle-timeout")

    def _update_unsent(self) -> bool:
        """Sum up what the peers have yet to take; return whether there is some, and the sum has changed."""
        before = self._unsent
        self._unsent = sum(
            side.unsent() for side in (self._client, self._server) if not side.is_closed
        )
        return self._unsent > 0 and self._unsent != before
