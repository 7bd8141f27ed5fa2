"""TLS over a socket that does not block, or over other TLS: it has a socket's methods, so a relay and a transport use it as one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, ECONNRESET
from functools import partial
from operator import attrgetter
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.net.relay.interface import DRAIN_POLL, LONGEST_DRAIN_POLL
from txmux.net.relay.peer_state import queued_in
from txmux.net.sockets.poller import WRITE
from txmux.net.sockets.transport import CLOSED, LOST, SocketTransport, release_socket

Distrusted = tuple[int, "x509.Certificate | None"]
"""OpenSSL's number of the reason (``X509_V_ERR_*``), and the certificate that it is about; ``None`` if that cannot be read."""

# What pyOpenSSL calls itself: its own methods allocate a buffer a call, and raise an exception where there is nothing yet.
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_RECORD = 2**14  # the most plaintext that a record has (RFC 8446, section 5.1)
_PIECE = 2**15  # the most ciphertext of one: a record and more (section 5.2)
_ROOM = 2**17
_FULL = _ROOM - _PIECE
# One of each for all: what is read is passed on before the next read.
_PLAIN, _CIPHER, _OUT = bytearray(_ROOM), bytearray(_ROOM), bytearray(_ROOM)
_PLAIN_VIEW, _CIPHER_VIEW, _OUT_VIEW = memoryview(_PLAIN), memoryview(_CIPHER), memoryview(_OUT)
_CIPHER_DATA, _OUT_DATA = _ffi.from_buffer(_CIPHER), _ffi.from_buffer(_OUT)
_START = _ffi.new("char **")
_MOST_KEPT = 2**18
"""Bytes for a peer that reads nothing: a piece, and what OpenSSL answers by itself, as to a KeyUpdate (section 4.6.3)."""
_NOW = int(socket.MSG_DONTWAIT)
EARLY = -1  # a flag: only what has come is read, and nothing from the socket


class TlsEnd:
    """Whatever is complete of what has come is returned by one read into 64 KiB, so no event is missing that epoll would report.

    A close-notify is an end, and so, unless `strict`, is that of TCP without one, since many peers send none. An end shows as one to
    epoll, too.

    Args:
        below: The socket, or the outer TLS.
        connection: Of OpenSSL; its handshake has not begun.

    Attributes:
        bottom: The socket below all layers.
        on_cut: Called when the connection below ends without a close-notify before one was sent: an attacker on the way could have cut it.
        distrusted: Why the peer's certificate is not trusted.
        is_broken: A send has failed, which the kernel reports once: what then looks like an end is none.
    """

    __slots__ = (
        "_is_drained", "_is_shut", "_kept", "_owed", "_polling", "_ssl", "_unverified", "below", "bottom",
        "connection", "distrusted", "fileno", "incoming_bio", "is_broken", "is_nested", "on_cut", "outgoing_bio", "strict",
    )  # fmt: skip

    is_tls = True
    family, getsockname, getsockopt, setblocking = (
        property(attrgetter(f"below.{name}"))  # asked seldom
        for name in ("family", "getsockname", "getsockopt", "setblocking")
    )

    def __init__(self, below: Any, connection: SSL.Connection) -> None:
        self.below, self.bottom = below, getattr(below, "bottom", below)
        self.fileno = below.fileno
        self.connection: Any = connection
        connection.set_app_data(self)
        own: Any = connection
        self._ssl, self.incoming_bio, self.outgoing_bio = own._ssl, own._into_ssl, own._from_ssl
        self._kept = b""  # ciphertext that there was no room for
        self._owed = 0  # bytes of what is kept that `send` has not counted
        self.is_broken = self._is_drained = self._is_shut = self.strict = False
        self.on_cut: Callable[[], None] | None = None
        self.distrusted: Distrusted | None = None
        self._unverified: BaseException | None = None
        self._polling: IDelayedCall | None = None
        self.is_nested = isinstance(below, TlsEnd)
        if self.is_nested:  # the innermost TLS says whether all has come
            below.strict, below.on_cut = False, None

    # The handshake. Its owner reads and writes.

    def shake(self, data: bytes) -> bool:
        """Take bytes of the peer; return whether the handshake is complete. `output` follows.

        Raises:
            SSL.Error: It has failed, or whatever `failVerification` was called with.
        """
        if data and _lib.BIO_write(self.incoming_bio, data, len(data)) <= 0:
            raise MemoryError
        result: int = _lib.SSL_do_handshake(self._ssl)
        if self._unverified is not None:
            _lib.ERR_clear_error()
            raise self._unverified
        if result != 1:
            if _lib.SSL_get_error(self._ssl, result) != _lib.SSL_ERROR_WANT_READ:
                self.connection._raise_ssl_error(self._ssl, result)
            return False
        # OpenSSL takes out of what has come only the record that it reads: if nothing is left there, there is nothing to read.
        self._is_drained = not _lib.BIO_get_mem_data(self.incoming_bio, _START)
        return True

    def failVerification(self, reason: Failure) -> None:
        self._unverified = reason.value

    def output(self) -> bytes:
        """Return what the peer is to be sent."""
        filled = _lib.BIO_read(self.outgoing_bio, _OUT_DATA, _ROOM)
        return bytes(_OUT_VIEW[:filled]) if filled > 0 else b""

    def release_buffers(self) -> None:
        """Free the memory that the handshake took between the socket and OpenSSL, which never shrinks."""
        if not self._is_drained:  # what has come would be lost; what goes out has gone
            return
        into, out = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
        if into and out:
            _lib.SSL_set_bio(self._ssl, into, out)  # which frees the others
            self.connection._into_ssl = self.incoming_bio = into
            self.connection._from_ssl = self.outgoing_bio = out
        else:  # there is no memory to save any
            _lib.BIO_free(into)
            _lib.BIO_free(out)

    # As a socket.

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        size = size or len(buffer)
        target, ssl = _ffi.from_buffer(buffer), self._ssl
        while True:
            if self._is_drained:
                if flags == EARLY and not self.is_nested:
                    raise BlockingIOError(EAGAIN, "")
                # With what came before of a record, there is no more in it than there is room for.
                most = max(size - _RECORD, _RECORD)
                came = self.below.recv_into(_CIPHER_VIEW, most, flags or _NOW)
                if not came:
                    return 0 if flags == EARLY else self._cut()  # an event reports it, too
                if _lib.BIO_write(self.incoming_bio, _CIPHER_DATA, came) <= 0:
                    raise MemoryError
            count = got = 0
            while left := size - count:
                got = _lib.SSL_read(ssl, target + count, left)
                if got <= 0:
                    break
                count += got
            self._is_drained = got <= 0 and self._wants_more(got, count)
            if count or not self._is_drained:
                if not self.is_nested or flags == EARLY or buffer is _CIPHER_VIEW:
                    return count
                return count + self._read_rest(memoryview(buffer)[count:size])

    def _read_rest(self, buffer: memoryview) -> int:
        """Read what the outer layers have left, which no event reports."""
        count = 0
        with suppress(OSError):
            while count < len(buffer) and (got := self.recv_into(buffer[count:], 0, EARLY)):
                count += got
        return count

    def recv(self, _size: int, flags: int = 0) -> bytes:
        return bytes(_PLAIN_VIEW[: self.recv_into(_PLAIN, 0, flags)])

    def _wants_more(self, result: int, count: int) -> bool:
        """Return whether more may come, and send what OpenSSL answers by itself."""
        error = _lib.SSL_get_error(self._ssl, result)
        is_end = error == _lib.SSL_ERROR_ZERO_RETURN
        if is_end or error == _lib.SSL_ERROR_WANT_READ:
            filled = _lib.BIO_read(self.outgoing_bio, _OUT_DATA, _ROOM)
            if filled > 0:
                self.flush(0, filled)
            why = "the peer does not read" if len(self._kept) > _MOST_KEPT else ""
        else:
            _lib.ERR_clear_error()
            with suppress(OSError):
                self.flush()  # an alert
            is_end, why = True, "TLS failed"
        if is_end:
            self._show_end()
        if why:
            self._is_shut = True  # a close-notify would make what was cut look whole
            if not count:
                raise ConnectionResetError(ECONNRESET, why)
        return not is_end

    def _show_end(self) -> None:
        with suppress(OSError):  # it has ended below, too
            self.below.shutdown(socket.SHUT_RD)

    def _cut(self) -> int:
        if self.is_broken:
            raise ConnectionResetError(ECONNRESET, "a send has failed before")
        if not self._is_shut:
            if self.on_cut is not None:
                self.on_cut()
            if self.strict:
                self._is_shut = True
                raise ConnectionResetError(ECONNRESET, "TLS was cut")
        return 0

    def send(self, data: Any, flags: int = 0) -> int:
        """Send bytes. As of a socket that has no room, the last one waits with its sender until all that is kept has been sent."""
        if self._kept and not self.flush(flags):
            raise BlockingIOError(EAGAIN, "")
        ssl, size, source = self._ssl, len(data), _ffi.from_buffer(data)
        at, self._owed = self._owed, 0
        while at < size:
            filled = 0
            while at < size and filled <= _FULL:
                count = _lib.SSL_write(ssl, source + at, min(size - at, _RECORD))
                if count <= 0:
                    _lib.ERR_clear_error()
                    raise ConnectionResetError(ECONNRESET, "TLS failed")
                at += count
                # Taken at once: OpenSSL never frees the memory of a connection for the most that has waited there.
                filled += _lib.BIO_read(self.outgoing_bio, _OUT_DATA + filled, _PIECE)
            if not self.flush(flags, filled):
                self._owed = 1
                return at - 1
        return size

    @property
    def unsent(self) -> int:
        return len(self._kept) + getattr(self.below, "unsent", 0)

    def flush(self, flags: int = 0, filled: int = 0) -> bool:
        filled = filled or max(0, _lib.BIO_read(self.outgoing_bio, _OUT_DATA, _ROOM))
        if not (filled or self._kept):
            return True
        data: Any = _OUT_VIEW[:filled]
        if self._kept or self.below is not self.bottom:  # an outer TLS has the same buffers
            data = b"".join((self._kept, data))
        try:
            sent = self.below.send(data, flags | _NOW)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.is_broken = True
            raise
        self._kept = bytes(data[sent:]) if sent < len(data) else b""
        return not self._kept

    def shutdown(self, how: int) -> None:
        """End one direction, or that of each layer: a close-notify stands for a FIN. If there is no room for it, it is called again."""
        if how == socket.SHUT_RD:
            self.below.shutdown(how)
            return
        if not self._is_shut:
            self._is_shut = True
            if _lib.SSL_shutdown(self._ssl) < 0:
                _lib.ERR_clear_error()
        if not self.flush():
            raise BlockingIOError(EAGAIN, "")
        if how == socket.SHUT_RDWR and self.is_nested:
            self.below.shutdown(how)

    def call_when_acknowledged(
        self, clock: IReactorTime, call: Callable[[], object], pause: float = DRAIN_POLL
    ) -> None:
        """Call once the peer has all, unless it is closed before: what the outer TLS still says would have a closed socket reset (RFC 2525, section 2.17)."""
        self._polling = None
        if self.is_nested and self._must_wait():
            then = min(2 * pause, LONGEST_DRAIN_POLL)
            again = self.call_when_acknowledged, clock, call, then
            self._polling = clock.callLater(pause, *again)
        else:
            call()

    def _must_wait(self) -> bool:
        below = self.below
        while isinstance(below, TlsEnd):
            below = below.below
        with suppress(OSError):
            while below.recv_into(_CIPHER_VIEW, 0, _NOW):
                pass
        return queued_in(self.bottom) > 0

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == socket.SO_LINGER and level == socket.SOL_SOCKET:
            self._is_shut = True  # it is broken off
        self.below.setsockopt(level, option, value)

    def close(self) -> None:
        if not self._is_shut:
            with suppress(OSError):
                self.shutdown(socket.SHUT_WR)
        if self._polling is not None:
            self._polling.cancel()
        self.release()
        self.below.close()

    def release(self) -> None:
        """Break reference cycles."""
        self.connection.set_app_data(None)
        self.on_cut = None

    @property
    def transport_class(self) -> type[TlsTransport]:
        return TlsTransport


@implementer(ISSLTransport)
class TlsTransport(SocketTransport):  # type: ignore[override]  # it may have a UNIX socket's address
    """A transport over a `TlsEnd`. Closed, it sends a close-notify, and reads on until that of the peer."""

    socket: Any
    on_shaken: Callable[[object], None] | None = None
    """Called when the handshake is complete, or has failed; ``None`` if that is done elsewhere, or over."""

    @classmethod
    def instead_of(cls, below: SocketTransport, end: TlsEnd) -> TlsTransport:
        """Put a transport in the place of the one below, whose protocol it takes over."""
        made = cls(below._poller, end, below._family, below.getPeer(), below.getHost())  # type: ignore[arg-type]  # as a socket
        end._kept, end.is_broken = release_socket(below), below._broken
        made.set_protocol(below.protocol)
        del below.protocol, below.socket, below.fileno
        made.startReading()
        return made

    def getHandle(self) -> SSL.Connection:  # type: ignore[override]  # as Twisted's TLS
        """Return OpenSSL's connection, as Twisted's transports do."""
        connection: SSL.Connection = self.socket.connection
        return connection

    def getPeerCertificate(self) -> Any:
        return self.getHandle().get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        return self.getHandle().get_alpn_proto_negotiated() or None

    def deliver_early(self) -> None:
        """Pass on what has come with the end of the handshake, which no event reports."""
        if self.connected:
            with suppress(OSError):
                if data := self.socket.recv(_ROOM, EARLY):
                    self.protocol.dataReceived(data)

    def shake(self, data: bytes = b"") -> None:
        """Go on with the handshake."""
        end, on_shaken, problem, is_done = self.socket, self.on_shaken, None, False
        try:
            is_done = end.shake(data)
        except Exception as why:  # noqa: BLE001 - of OpenSSL, or of the one who verifies
            problem = why
        with suppress(OSError):  # the next read reports it
            end.flush()
        if on_shaken is not None and (is_done or problem):
            self.on_shaken = None
            on_shaken(problem)
            self.deliver_early()

    def _read_handshake(self) -> None:
        try:
            data = self.socket.below.recv(_ROOM)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.shake(data)
        elif self.on_shaken is not None:
            on_shaken, self.on_shaken = self.on_shaken, None
            on_shaken(ConnectionLost())

    @override
    def loseConnection(self) -> None:
        if self.on_shaken is not None:
            self.abortConnection()
            return
        if self._events & WRITE or self.producer is not None:
            super().loseConnection()
        elif self.connected and not self.disconnecting:
            self.disconnecting = 1
            self._poller.call_soon(self._end)

    def _closeWriteConnection(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self.startWriting()  # there is no room for the close-notify; this is called again
            return
        except OSError:
            return
        super()._closeWriteConnection()

    def _postLoseConnection(self) -> None:
        self._poller.call_soon(self._end)

    def _end(self) -> None:
        if not self.connected or self._aborting:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self.startWriting()
            return
        except OSError:
            self._read_to_end = True
        if self._read_to_end:
            self._end_acknowledged()
        else:
            self.startReading()

    def _end_acknowledged(self) -> None:
        if self.socket.is_nested:
            self.stopReading()
        end = partial(self.connectionLost, CLOSED)
        self.socket.call_when_acknowledged(self._poller.reactor, end)

    @override
    def _ready(self, events: int) -> None:
        if self.on_shaken is not None:
            self._read_handshake()
            return
        if self._aborting or not self.disconnecting or self._events & WRITE:
            super()._ready(events)
            return
        try:
            data = self.socket.recv(_ROOM)
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(LOST)
            return
        if data:
            self.protocol.dataReceived(data)
        else:
            self._end_acknowledged()
