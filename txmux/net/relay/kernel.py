"""A relay's side over a socket, or over what has a socket's methods.

Its descriptor is taken out of the reactor and served by a `Poller`. Small messages go through one buffer, large ones from socket to
socket through a pipe inside the kernel (splice(2)). At the end the descriptor goes back to its transport.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
from typing import Any

import attrs
from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.classes import define
from txmux.net.relay.interface import SideState
from txmux.net.relay.marks import Mark, MarkGuard
from txmux.net.relay.paced import PacedEnd
from txmux.net.relay.peer_state import (
    ANSWERED,
    UnansweredBytes,
    queued_in,
    unacknowledged_by,
    unanswered_by,
)
from txmux.net.relay.peers import NO_RECEIVER, Peer
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.descriptors import DESCRIPTORS, Descriptors
from txmux.net.sockets.memory import MEMORY, OUT_OF_MEMORY
from txmux.net.sockets.poller import ERROR, FINISHED, READ, TROUBLE, WRITE, Poller
from txmux.net.sockets.transport import CLOSED, LOST, release_socket

_log = Logger()
PIPE_SIZE = 256 * 1024  # bytes that a pipe may hold
LARGE_SIZE = 2**20  # bytes that a large one may hold: the most that Linux allows every user


class Spliced:
    """Counts the bytes that have passed through pipes in this process since the last `take_count`."""

    def __init__(self) -> None:
        self.count = 0

    def take_count(self) -> int:
        count, self.count = self.count, 0
        return count


SPLICED = Spliced()


class Pipe:
    """A pipe that does not block."""

    __slots__ = ("level", "sink", "size", "source")

    def __init__(self, size: int) -> None:
        self.size = size
        self.source, self.sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.level = 0
        with contextlib.suppress(OSError):  # the user has many; then it keeps its size
            fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.sink)


@define(eq=False, slots=False)
class PipePool:
    """Keeps pipes for further use. Linux lets a user have 64 MiB of them.

    Args:
        in_use: The most that are in use at a time: each takes two descriptors, which connections need too.
        idle: The most that stay open.
    """

    _in_use: int = 192
    _idle_limit: int = attrs.field(default=16, alias="idle")
    _descriptors: Descriptors = DESCRIPTORS
    _size: int = PIPE_SIZE
    _idle: list[Pipe] = attrs.field(factory=list, init=False)
    given = 0

    def take_pipe(self) -> Pipe | None:
        if self.given >= self._in_use:
            return None
        if self._idle:
            pipe = self._idle.pop()
        elif not self._descriptors.can_spare(2):  # connections need them, and do without a pipe
            return None
        else:
            try:
                pipe = Pipe(self._size)
            except OSError:
                return None
        self.given += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Keep or close a pipe. One that is not empty is closed: its bytes must not reach another connection."""
        self.given -= 1
        if pipe.level or len(self._idle) >= self._idle_limit:
            pipe.close()
        else:
            self._idle.append(pipe)

    def clear(self) -> None:
        while self._idle:
            self._idle.pop().close()


BUFFER = bytearray(64 * 1024)  # one for all: what is read is sent or buffered before the next read
VIEW = memoryview(BUFFER)
FULL = len(BUFFER)
_FEW = 16 * 1024  # bytes for which a pipe is not worth its cost
MUCH = 16  # times in a row that few must come before no pipe is used
_SPLICE = 1 | 2  # SPLICE_F_MOVE and SPLICE_F_NONBLOCK of splice(2)
MORE = int(getattr(socket, "MSG_MORE", 0))
_UNWATCHED = -1
_SPLICES = hasattr(os, "splice")
_TURN = 2**20  # bytes that one side moves before other sockets are served

pipes = PipePool()
large_pipes = PipePool(in_use=16, idle=4, size=LARGE_SIZE)
DESCRIPTORS.add_cache(pipes.clear)
DESCRIPTORS.add_cache(large_pipes.clear)


class KernelSide:
    """The socket of one peer, and what is held for that. It implements `PeerReceiver`, and becomes the receiver of its `Peer`.

    Attributes:
        received: Bytes that came from its peer and were passed on.
        received_before_end: How many of them had come when the other side's peer finished sending.
        last_byte_at: When the last of them came, in the relay's seconds. Updated while the relay is not `Relay.ending`.
        unacknowledged_at_reset: What was `unacknowledged` when its peer reset the connection; ``None`` if it has not.
        is_layered: Whether there is TLS, or another transport, between the relay and the socket; such a side cannot move.
    """

    __slots__ = (
        "_bottom", "_closing", "_descriptor", "_events", "_half_closing", "_held", "_is_tls", "_much", "_pipe",
        "_poller", "_reading", "_socket", "_unwritable", "has_finished", "is_closed", "is_layered",
        "last_byte_at", "mark", "other", "received", "received_before_end", "relay", "transport",
        "unacknowledged_at_reset",
    )  # fmt: skip

    relay: Any  # `Relay`, which knows this module
    other: KernelSide

    def __init__(self, peer: Peer, poller: Poller) -> None:
        self.received = self.received_before_end = 0
        self.unacknowledged_at_reset: float | None = None
        self.last_byte_at = 0.0
        self.has_finished = self.is_closed = False
        its: Any = peer.transport
        if not isinstance(its, tcp.Connection) or its.TLS:
            its = TransportEnd.under(peer, poller)
        self.transport: Any = its
        self._poller: Poller = getattr(its, "_poller", poller)
        self._socket = its.socket
        self.is_layered = hasattr(self._socket, "bottom")
        self._is_tls = getattr(self._socket, "is_tls", False)
        self._bottom: socket.socket = getattr(self._socket, "bottom", self._socket)
        self._descriptor = self._socket.fileno()
        self._held: bytes | memoryview = b""  # for this side's peer
        self._much = 0  # how often few bytes may still come before no pipe is used
        self.mark: Mark | None = None  # of a peer that has sent much
        self._pipe: Pipe | None = None  # with bytes in it that are on their way to the other side
        self._reading = False  # whether more may come, and is to be read
        self._half_closing = False  # to be done when nothing is held, like the next
        self._closing = False
        self._unwritable = False  # its peer has stopped accepting bytes, but may have sent some

    def limit_rate(self, rate: int | None, *, has_burst: bool = True) -> None:
        """Limit what its peer is sent, in bytes per second; ``None`` sets no limit."""
        if rate is not None:
            clock = self.relay.clock
            paced: Any = PacedEnd(self._socket, self._poller, clock, rate, has_burst=has_burst)
            self._socket = self._poller = paced

    def start_forwarding(self, *, reading: bool) -> None:
        self._held = release_socket(self.transport)
        self._reading = reading
        self._watch((READ if reading else 0) | (WRITE if self._held else 0))

    def _watch(self, events: int) -> None:
        try:
            self._poller.watch(self._descriptor, events, self.ready)
        except OSError as problem:
            # No event would ever come, so it ends; later, since the caller does not expect it.
            self._events = _UNWATCHED
            self._poller.call_soon(functools.partial(self._end, Failure(problem)))
        else:
            self._events = events

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.relay.side_began(self, data)
        self.received += len(data)
        self.other.write(data)

    def peer_finished(self) -> None:
        if not self.has_finished:
            self.has_finished = True
            self.other.received_before_end = self.other.received
            self.relay.side_finished(self)

    def connection_lost(self, reason: Failure) -> None:
        self._poller.closing(self._descriptor)
        self.other._put_pipe_away()  # with what can no longer be sent to this side's peer
        if self.other.is_closed:
            self._put_pipe_away()  # until then the other side's peer has yet to take what is in it
        self._held = b""
        if self.mark is not None:
            self.mark.socket_closed()
        self.is_closed = True
        self.relay.side_lost(self, reason)

    def ready(self, events: int) -> None:
        try:
            self._serve(events)
        except MemoryError:
            MEMORY.report_shortage(ended=1)
            if not self.is_closed:  # what has been read may not have been buffered
                self._end(OUT_OF_MEMORY)
            if not self.is_closed:  # there was no memory to report the end, either
                self.connection_lost(OUT_OF_MEMORY)
        except Exception:  # noqa: BLE001 - it ends this connection alone; what is ready would be reported again and again
            _log.failure("the relay of {transport!r} raised", transport=self.transport)
            self.relay.abort("error")

    def _serve(self, events: int) -> None:
        if events & (WRITE | TROUBLE) and (self._half_closing or self._is_full()):
            self._flush()
            if self.is_closed:
                return
        if events & (READ | TROUBLE):
            if self._reading and not self.other._is_full():
                self._read(events)
            elif not self._reading and self._is_gone():
                self._end(CLOSED)
            elif events & ERROR and not (self._reading or (self._is_tls and self.has_finished)):
                self._end(LOST)
            elif not events & TROUBLE:
                self._update()
            elif not self._reading and self._is_full():
                self.set_unwritable()  # it waits for its rate, and unwatched it would wait for ever
            else:
                # The event would come again and again, and can be handled only when there is room
                # for what the peer sent before. One of TLS that has finished may just not have read a ticket (RFC 8446, section 4.6.1).
                self._poller.unwatch(self._descriptor)
                self._events = _UNWATCHED

    def _read(self, events: int) -> None:
        answered = self.other.mark
        if answered is not None:
            answered.sender_answered()
        if self._much and _SPLICES:
            mark = self.mark = self.mark or Mark(
                self._bottom, MarkGuard.for_reactor(self._poller.reactor)
            )
            pipe = self._pipe = (
                large_pipes.take_pipe() if mark.is_set else None
            ) or pipes.take_pipe()
            if pipe is not None:
                self._splice(pipe, mark)
                if not pipe.level:
                    self._put_pipe_away()
                return
        while self._receive(events & FINISHED):
            pass

    def _receive(self, end_is_near: int) -> bool:
        try:
            count = self._socket.recv_into(BUFFER)
        except BlockingIOError:
            return False
        except OSError:
            self._end(LOST)
            return False
        if not count:
            if self._unwritable:
                self._end(LOST)
            elif self._is_gone():
                self._end(CLOSED)
            else:
                self._reading = False
                self.peer_finished()
                self._update()  # or the poller would report the end again
            return False
        relay = self.relay
        if not self.received:
            relay.side_began(self, VIEW[:count])
        self.received += count
        self.last_byte_at = relay.seconds()
        other = self.other
        can_splice = not self.is_layered and other._socket is other._bottom
        self._much = MUCH if count == FULL and can_splice else 0
        # The last bytes wait for the end in the kernel, and leave with it in one packet.
        flags = MORE if end_is_near and not self._much else 0
        try:
            sent = other._socket.send(VIEW[:count], flags)
        except BlockingIOError:
            sent = 0
        except OSError:
            other.set_unwritable()
            return False
        if sent < count:
            other._hold(bytes(VIEW[sent:count]))
            return False
        return bool(flags)

    def _is_gone(self) -> bool:
        return self.is_layered and getattr(self._socket, "is_gone", False)

    def _splice(self, pipe: Pipe, mark: Mark) -> None:
        relay = self.relay
        moved = 0
        while moved < _TURN:
            try:
                count = os.splice(self._descriptor, pipe.sink, pipe.size, flags=_SPLICE)
            except BlockingIOError:
                # An urgent byte stops splice for ever, but not recv, which skips it.
                if not moved:
                    self._expect_few()
                return
            except OSError:
                self._end(LOST)
                return
            if not count:
                self._expect_few()  # recv finds out whether it is the end, or an urgent byte
                return
            pipe.level = count
            moved += count
            self.received += count
            SPLICED.count += count
            self.last_byte_at = relay.seconds()
            mark.bytes_came(count)
            if not self.other._drain(pipe):
                return
            if count < _FEW:
                if self._much == 1:
                    self._expect_few()
                else:
                    self._much -= 1
                return
            self._much = MUCH

    def _expect_few(self) -> None:
        self._much = 0
        if self.mark is not None:
            self.mark.clear()

    # What is held for this side's peer.

    def _is_full(self) -> bool:
        pipe = self.other._pipe
        return bool(self._held) or (pipe is not None and pipe.level > 0)

    def write(self, data: bytes) -> None:
        """Send bytes, or hold them; only before those of the other side."""
        sent = 0
        if not self._held:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.set_unwritable()
                return
        if sent < len(data):
            self._hold(data[sent:])

    def _hold(self, data: bytes) -> None:
        self._held = b"".join((self._held, data))
        self._update()
        self.other._update()

    def _drain(self, pipe: Pipe) -> bool:
        try:
            while pipe.level:
                pipe.level -= os.splice(pipe.source, self._descriptor, pipe.level, flags=_SPLICE)
        except BlockingIOError:
            self._update()
            self.other._update()
            return False
        except OSError:
            self.set_unwritable()
            return False
        return True

    def _flush(self) -> None:
        if self._held:
            try:
                sent = self._socket.send(self._held)
            except BlockingIOError:
                return
            except OSError:
                self.set_unwritable()
                return
            if sent < len(self._held):
                self._held = memoryview(self._held)[sent:]
                return
            self._held = b""
        pipe = self.other._pipe
        if pipe is not None:
            if not self._drain(pipe):
                return
            self.other._put_pipe_away()
        if self._half_closing or self._closing:
            self._shut()
            if self.is_closed:
                return
        self._update()
        self.other._update()

    def set_unwritable(self) -> None:
        # What its peer has sent before that is read first.
        if self._has_socket:
            self.unacknowledged_at_reset = self.unacknowledged()
        self._unwritable = True
        self._held = b""
        other = self.other
        other._put_pipe_away()
        other._reading = False
        other._update()
        if not self._reading or other.is_closed or other._unwritable:
            self._end(LOST)
        else:
            self._update()

    def lost(self) -> None:
        self._end(LOST)

    def _shut(self) -> None:
        self._half_closing = False
        try:
            if self.is_layered or not self._closing:
                self._socket.shutdown(socket.SHUT_RDWR if self._closing else socket.SHUT_WR)
        except BlockingIOError:  # there is no room for a close-notify
            self._half_closing = True
            return
        except OSError:
            pass  # it broke; reading finds out
        if self._closing:
            end = functools.partial(self._end, CLOSED)
            if getattr(self._socket, "is_nested", False):
                self._socket.call_when_acknowledged(self.relay.clock, end)
            else:
                end()

    def stop_reading(self) -> None:
        """Read no more, for good."""
        self._reading = False
        self._update()

    def half_close(self) -> None:
        """End what its peer is sent, after what is held."""
        if self._is_full():
            self._half_closing = True
        else:
            self._shut()
            self._update()

    def close(self) -> None:
        """Close cleanly; its peer has acknowledged everything."""
        if self.is_layered:
            self.close_when_sent()
        else:
            self._end(CLOSED)

    def close_when_sent(self) -> None:
        """Close cleanly, after what is held."""
        self._closing = True
        if not self._is_full():
            self._shut()
        self.stop_reading()

    def abort(self) -> None:
        self._end(Failure(ConnectionAborted()))

    def unsent(self) -> int:
        pipe = self.other._pipe
        kept: int = self._socket.unsent if self.is_layered else 0
        return len(self._held) + (pipe.level if pipe else 0) + kept + queued_in(self._bottom)

    def unacknowledged(self) -> float:
        """Count the bytes that its peer has not acknowledged, also after a reset; infinite if unknown."""
        pipe, is_foreign = self.other._pipe, self.is_layered and not self._is_tls
        queued = self._socket.unacknowledged() if is_foreign else unacknowledged_by(self._bottom)
        if queued and self.other.has_finished and not (self._half_closing or self._is_tls):
            queued -= 1  # the FIN
        return len(self._held) + (pipe.level if pipe else 0) + queued

    def unanswered(self) -> UnansweredBytes:
        return ANSWERED if self.is_closed else unanswered_by(self._bottom)

    # Moving to another relay.

    @property
    def _has_socket(self) -> bool:
        # A transport below TLS may have closed its own.
        return not self._is_tls or getattr(self._socket, "below", None) is self._bottom

    def suspend(self, quiet: float) -> SideState:
        """Leave the socket alone. What is in the other side's pipe is held from now on; `quiet` are the seconds since its peer's last byte."""
        if self._events != _UNWATCHED:
            self._poller.unwatch(self._descriptor)
            self._events = _UNWATCHED
        self._expect_few()
        pipe = self.other._pipe
        if pipe is not None:
            parts = [self._held]
            while pipe.level:
                parts.append(os.read(pipe.source, pipe.level))
                pipe.level -= len(parts[-1])
            self._held = b"".join(parts)
            self.other._put_pipe_away()
        return SideState(
            received=self.received,
            held=bytes(self._held),
            has_finished=self.has_finished,
            is_reading=self._reading,
            is_half_closing=self._half_closing,
            is_unwritable=self._unwritable,
            quiet=quiet,
            after_end=self.received - self.received_before_end,
            rate=self._socket.rate if isinstance(self._socket, PacedEnd) else None,
        )

    def resume(self) -> None:
        self._watch(self._events_needed())

    def adopt(self, state: SideState) -> None:
        release_socket(self.transport)
        self._events = _UNWATCHED
        self.received = state.received
        self.received_before_end = state.received - state.after_end
        self.has_finished = state.has_finished
        self._held = state.held
        self._reading = state.is_reading
        self._half_closing = state.is_half_closing
        self._unwritable = state.is_unwritable
        self.limit_rate(state.rate, has_burst=False)

    def detach(self) -> None:
        self.is_closed = True
        self.transport.protocol.receiver = NO_RECEIVER
        self.transport._shouldShutdown = False  # or Twisted would end the connection itself
        self.transport.connectionLost(CLOSED)

    def _end(self, reason: Failure) -> None:
        if reason is LOST and self._has_socket and self.unacknowledged_at_reset is None:
            self.unacknowledged_at_reset = self.unacknowledged()
        self.transport.connectionLost(reason)  # closes the descriptor, and notifies the protocol

    def _put_pipe_away(self) -> None:
        if self._pipe is not None:
            pool = large_pipes if self._pipe.size == LARGE_SIZE else pipes
            pool.give_back(self._pipe)
            self._pipe = None

    def _update(self) -> None:
        if self.is_closed:
            return
        events = self._events_needed()
        if self._events == _UNWATCHED:
            if events:
                self._watch(events)
        elif events != self._events:
            self._poller.change(self._descriptor, events)
            self._events = events

    def _events_needed(self) -> int:
        reading = self._reading and not self.other._is_full()
        writing = self._half_closing or self._is_full()
        return (READ if reading else 0) | (WRITE if writing else 0)
