"""A full Twisted transport for a connected TCP or UNIX socket that a `Poller` watches."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import abstract, address, error, main, tcp
from twisted.internet.interfaces import IAddress, IProtocol, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.net.sockets.memory import MEMORY, OUT_OF_MEMORY
from txmux.net.sockets.plainsocket import host_of, reset_on_close
from txmux.net.sockets.poller import ERROR, FINISHED, READ, TROUBLE, WRITE, Poller

CLOSED = Failure(main.CONNECTION_DONE)
"""The reason of connections that ended cleanly. One object for all, like the reactor's."""

LOST = Failure(main.CONNECTION_LOST)  # the reason of connections that broke
_ABORTED = Failure(error.ConnectionAborted())
_TCP = {socket.AF_INET, socket.AF_INET6}
SO_MEMINFO = 55  # asm-generic/socket.h
_NO_MEMORY = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

_log = Logger()


@functools.lru_cache(maxsize=1024)  # a client is asked for its own twice, and servers are few
def address_of(family: int, name: Any) -> IAddress:
    """Convert what ``getsockname()`` returns to a Twisted address."""
    if family == socket.AF_INET:
        return address.IPv4Address("TCP", *name)
    if family == socket.AF_INET6:
        return address.IPv6Address("TCP", *name)
    return address.UNIXAddress(name or None)


def address_of_peer(name: tuple[Any, ...]) -> IAddress:
    """Convert what ``accept()`` returns on a port for TCP to a Twisted address."""
    if len(name) == 2:
        return address_of(socket.AF_INET, name)
    return address_of(socket.AF_INET6, (host_of(name), *name[1:]))


def sockaddr(host: str, port: int) -> tuple[Any, ...]:
    """Return the socket address of an IP address, which may have a zone, as in ``fe80::1%eth0`` (RFC 4007, section 11).

    Raises:
        OSError: This machine has no such interface.
    """
    plain, _, zone = host.partition("%")
    if not zone:
        return host, port
    try:
        return plain, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError:
        raise OSError(errno.ENODEV, f"this machine has no interface {zone!r}") from None


def release_socket(transport: tcp.Connection) -> bytes:
    """Release the socket of a transport to a new owner, which is to watch it, and return the unsent bytes."""
    is_empty = not transport.dataBuffer and not transport._tempDataBuffer
    unsent = b"" if is_empty else _take_unsent(transport)
    if isinstance(transport, SocketTransport):
        transport._events = 0  # the poller keeps watching until the new owner replaces the handler
    else:
        transport.stopReading()
        transport.stopWriting()
    return unsent


def _take_unsent(transport: tcp.Connection) -> bytes:
    unsent = (transport.dataBuffer[transport.offset :], *transport._tempDataBuffer)
    transport.dataBuffer, transport.offset = b"", 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0
    return b"".join(unsent)


class SocketPreview:
    """Peeks at the first bytes of a TCP socket, so that another process can still read them.

    A level-triggered epoll(7) would report the peeked bytes again and again. `SO_RCVLOWAT` (socket(7)) is therefore one more
    than what was peeked.

    Attributes:
        seen: The number of peeked bytes that are still in the socket.
    """

    __slots__ = ("_most", "_socket", "on_full", "seen")

    def __init__(self, connected: socket.socket, most: int, on_full: Callable[[], object]) -> None:
        self._socket = connected
        self._most = most
        self.on_full = on_full
        self.seen = 0

    def peek_new(self) -> bytes:
        try:
            peeked = self._socket.recv(self._most, socket.MSG_PEEK)
        except BlockingIOError:
            return b""
        new = peeked[self.seen :]
        if new:
            self._set_seen(len(peeked))
        return new

    def is_full(self) -> bool:
        """Return whether the peer has sent more than can be peeked."""
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        return bool(readable.poll(0))

    def read_seen(self, count: int) -> None:
        self._set_seen(self.seen - count)
        left = count
        while left:
            left -= len(self._socket.recv(left)) or left

    def report_every_byte(self) -> None:
        if self.seen:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _set_seen(self, count: int) -> None:
        self.seen = count
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count + 1)


class SocketTransport(tcp.Connection):
    """A Twisted transport whose socket a `Poller` watches. `write` sends immediately when nothing is buffered.

    Attributes:
        watch_error: Why the socket cannot be watched; the connection is about to end.
        reads_later: Whether an owner that has paused reading promises to read again or to close. If not, a failed write
            ends the connection, since nothing would ever notice the end.
    """

    watch_error: OSError | None = None
    reads_later = False
    connected = 1

    _tlsClientDefault = False
    _events = 0
    # Writing has failed. The kernel reports the error once, so a later read cannot tell a reset from an end.
    _broken = False
    _read_to_end = False
    _preview: SocketPreview | None = None

    def __init__(
        self,
        poller: Poller,
        connected: socket.socket,
        family: int,
        peer: IAddress,
        host: IAddress | None = None,
    ) -> None:
        abstract.FileDescriptor.__init__(self, poller.reactor)
        self.socket = connected
        self.fileno = connected.fileno
        self._descriptor = connected.fileno()
        self._family = family
        self._peer = peer
        self._host = host
        self._poller = poller

    def connect_protocol(self, protocol: IProtocol) -> None:
        self.protocol = protocol
        self._events = READ
        self._watch(READ)
        protocol.makeConnection(self)

    def set_protocol(self, protocol: IProtocol) -> None:
        """Set a protocol without calling its `makeConnection`, and without starting to read."""
        self.protocol = protocol
        protocol.transport = self  # type: ignore[attr-defined]  # every protocol has one

    def __repr__(self) -> str:
        return f"<SocketTransport {self.getPeer()}>"

    def getHost(self) -> IAddress:
        if self._host is None:
            self._host = address_of(self._family, self.socket.getsockname())
        return self._host

    def getPeer(self) -> IAddress:
        return self._peer

    # Protocols take UNIX sockets for TCP, as Twisted's own transports of them say that they are.

    def getTcpNoDelay(self) -> bool:
        return self._family in _TCP and super().getTcpNoDelay()

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 - Twisted's signature
        if self._family in _TCP:
            super().setTcpNoDelay(enabled)

    def take_received(self) -> bytes:
        """Return the bytes that can be read now; empty also for an end or an error, which the next event reports."""
        try:
            if self._preview is not None:
                return self._preview.peek_new()
            return self.socket.recv(self.bufferSize)
        except OSError:
            return b""

    # Preview: the protocol gets bytes that stay in the socket.

    def start_preview(self, most: int, on_full: Callable[[], object]) -> bool:
        """Pass the first bytes to the protocol, and leave them in the socket, too; returns whether that is possible.

        `on_full` is called when the peer has sent more than `most` bytes.
        """
        if self._family not in _TCP:
            return False
        self._preview = SocketPreview(self.socket, most, on_full)
        return True

    def skip(self, count: int) -> None:
        if self._preview is not None:
            with contextlib.suppress(OSError):  # the next read reports it
                self._preview.read_seen(count)

    def leave_unread(self) -> None:
        self.stopReading()
        if self._preview is not None:
            with contextlib.suppress(OSError):
                self._preview.report_every_byte()

    def stop_preview(self) -> None:
        preview, self._preview = self._preview, None
        if preview is None or not self.connected:
            return
        with contextlib.suppress(OSError):  # as above
            preview.read_seen(preview.seen)

    def _read_preview(self, preview: SocketPreview, events: int) -> object:
        try:
            new = preview.peek_new()
            if not new and not events & (FINISHED | TROUBLE) and preview.is_full():
                new = preview.peek_new()  # it may have come since the first try
                if not new:
                    preview.on_full()
                    if self._preview is preview:
                        self.stopReading()
                    return None
        except OSError:
            return main.CONNECTION_LOST
        if new:
            self.protocol.dataReceived(new)
            if self._preview is not preview or not self._events & READ:
                # The protocol has stopped the preview or reading; an end is reported when it reads again.
                return None
        if events & TROUBLE:
            return main.CONNECTION_LOST
        return main.CONNECTION_DONE if events & FINISHED else None

    # Watching. Twisted's transports call these methods on the reactor.

    def startReading(self) -> None:
        self._want((self._events | READ) & ~TROUBLE)

    def stopReading(self) -> None:
        self._want(self._events & ~READ)

    def watch_for_reset(self) -> None:
        """Stop reading, but end if the peer resets the connection."""
        if self.connected:
            self._want((self._events & ~READ) | TROUBLE)

    def handle_pending_events(self) -> None:
        """Poll the socket and handle the result now, instead of in the poller's next turn."""
        if self.connected:
            for _, events in self._poll(self._events):
                self._ready(events)

    def may_have_unread_fin(self) -> bool:
        """Return whether the peer may have closed unnoticed: a FIN cannot arrive while unread bytes fill the receive buffer."""
        if self._family not in _TCP or not self.connected or self._poll(FINISHED):
            return False
        filled, size = struct.unpack("II", self.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 8))
        return bool(filled > size // 2)

    def _poll(self, events: int) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._descriptor, events)
        return poll.poll(0)

    def startWriting(self) -> None:
        self._want(self._events | WRITE)

    def stopWriting(self) -> None:
        self._want(self._events & ~WRITE)

    def _want(self, events: int) -> None:
        before = self._events
        if events == before:
            return
        self._events = events
        if not before:
            self._watch(events)
        elif events:
            self._poller.change(self._descriptor, events)
        else:
            self._poller.unwatch(self._descriptor)

    def _watch(self, events: int) -> None:
        try:
            self._poller.watch(self._descriptor, events, self._ready)
        except MemoryError:
            MEMORY.report_shortage(ended=1)
            self._fail_watch(_NO_MEMORY, OUT_OF_MEMORY)
        except OSError as problem:
            self._fail_watch(problem, Failure(problem))

    def _fail_watch(self, problem: OSError, why: Failure) -> None:
        # No event would ever come, so the connection ends; not at once, since the caller still uses the transport.
        self._events = 0
        self.watch_error = problem
        self._poller.call_soon(functools.partial(self.connectionLost, why))

    def _ready(self, events: int) -> None:
        if self._aborting or (self.disconnecting and not self._events & WRITE):
            return
        try:
            why = self._read_and_write(events)
        except MemoryError:
            MEMORY.report_shortage(ended=1)
            self.connectionLost(OUT_OF_MEMORY)
            return
        except Exception as problem:  # noqa: BLE001 - it ends this connection alone
            _log.failure("the protocol of {transport!r} raised", transport=self)
            why = problem
        if why is main.CONNECTION_DONE:
            self.connectionLost(LOST if self._broken else CLOSED)
        elif why is main.CONNECTION_LOST:
            self.connectionLost(LOST)
        elif isinstance(why, BaseException):
            self.connectionLost(Failure(why))

    def _read_and_write(self, events: int) -> object:
        if events & TROUBLE and self._events == TROUBLE:
            if events & ERROR or not self._writeDisconnected:
                return main.CONNECTION_LOST
            # Both directions have ended in order, which epoll calls a hang-up, and would report again and again.
            self._want(0)
            return None
        if events & (READ | TROUBLE) and self._events & READ:
            preview = self._preview
            why = self.doRead() if preview is None else self._read_preview(preview, events)
            if why is main.CONNECTION_DONE and not self._broken:
                self._read_to_end = True
                self.stopReading()
                self.readConnectionLost(CLOSED)
                return None
            if why:
                return why
        if events & (WRITE | TROUBLE) and self._events & WRITE:
            why = self.doWrite()
            return None if why is main.CONNECTION_LOST and self._is_broken() else why
        return None

    def write(self, data: bytes) -> None:
        if (
            not self._events & WRITE
            and not self.TLS
            and self.connected
            and not self._writeDisconnected
            and data
        ):
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
            elif self._is_broken():
                return
        if not self._broken:
            super().write(data)

    def _is_broken(self) -> bool:
        """Record a failed write; return whether the connection continues until the bytes that the peer sent before are read."""
        is_unread = self.disconnecting or not (self._events & READ or self.reads_later)
        if self._read_to_end or is_unread:
            return False
        self._broken = True
        _take_unsent(self)
        self.stopWriting()
        return True

    def loseConnection(self) -> None:
        if self._events & WRITE or self.TLS or self.producer is not None:
            super().loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = 1
            self._poller.call_soon(functools.partial(self.connectionLost, CLOSED))

    def loseWriteConnection(self) -> None:
        if self._events & WRITE or self.TLS or self.producer is not None:
            super().loseWriteConnection()
        elif self.connected and not self._writeDisconnecting:
            self._writeDisconnecting = True
            self._poller.call_soon(self._shut_down)

    def _shut_down(self) -> None:
        # If bytes were written meanwhile, Twisted half-closes after them. If the connection is closing, a FIN is not needed;
        # before a reset, it would look like a clean end.
        is_ending = self.disconnecting or self._aborting or not self.connected
        if not is_ending and not self._events & WRITE:
            self._writeDisconnected = True
            self._closeWriteConnection()

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self._poller.call_soon(functools.partial(self.connectionLost, _ABORTED))

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return
        self.disconnected, self.connected = 1, 0
        try:
            self._close_socket(reason)
        except MemoryError:
            MEMORY.report_shortage()
            self._close_socket(reason)
        protocol = self.protocol
        if self._preview is not None:
            self._preview = None  # its callback refers to the protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)

    def _close_socket(self, reason: Failure) -> None:
        """Close the socket. May be called again if it raised."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        # Also without events: the watch may still be that of an owner before.
        self._poller.closing(self._descriptor)
        self._events = 0
        if isinstance(reason.value, error.ConnectionAborted):
            # A reset shows the peer that this was not a clean end.
            reset_on_close(self.socket)
        self.socket.close()


def below_tls(transport: Any) -> Any:
    """Return the transport under all layers of TLS; a transport without TLS as it is."""
    bottom = transport
    while ISSLTransport.providedBy(bottom) and hasattr(bottom, "transport"):
        bottom = bottom.transport
    return bottom


def socket_below(transport: Any) -> Any:
    """Return the socket of a transport, under all layers of TLS; what else it has for one if it has none."""
    bottom = below_tls(transport)
    connected = getattr(bottom, "socket", None)
    return bottom.getHandle() if connected is None else getattr(connected, "bottom", connected)


def unsent_bytes(transport: Any) -> int:
    """Count the bytes in the write buffer of a transport without TLS; 0 if it is unknown."""
    count: int = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return count + getattr(transport, "_tempDataLen", 0)
