"""A TLS transport that can be half-closed, and that never makes a broken stream look like a whole one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.SSL import SENT_SHUTDOWN, Error, ZeroReturnError
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.net.sockets.transport import below_tls, unsent_bytes

Distrusted = tuple[int, "x509.Certificate | None"]
"""OpenSSL's number of the reason (``X509_V_ERR_*``), and the certificate that it is about; ``None`` if that cannot be read."""

_RECORD = 2**14  # the most plaintext that a record has (RFC 8446, section 5.1)
_PIECE = 2**15  # the most ciphertext that is taken at once: a record and more (section 5.2)
_ROOM = 2**17  # the most ciphertext that is sent in one go
# What pyOpenSSL calls itself: its own methods allocate a buffer a call, and raise an exception where there is nothing yet.
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_BUFFER = _ffi.new("char[]", _ROOM)
_MOST_UNREAD = 2**16
"""Bytes that OpenSSL answers by itself, as to a KeyUpdate (section 4.6.3), while the client reads nothing."""


def _expect_more(connection: Any, result: int) -> None:
    """Raise the error of a result, unless OpenSSL waits for more bytes of the peer."""
    if _lib.SSL_get_error(connection._ssl, result) != _lib.SSL_ERROR_WANT_READ:
        connection._raise_ssl_error(connection._ssl, result)


@implementer(IHalfCloseableProtocol)
class TLSTransport(TLSMemoryBIOProtocol):
    """The TLS of a client, as the transport of a protocol that can be half-closed.

    It differs from Twisted's in two ways. The client's close-notify only ends its own direction (RFC 8446, section 6.1); so,
    unless `strict`, does the end of the TCP connection's one direction, since many clients send no close-notify. And
    breaking the connection off sends no close-notify, which would make a cut answer look complete.

    The protocol's method ``truncated()``, if it has one, is called when the client's direction of the TCP connection ends
    without a close-notify before one was sent to the client: an attacker on the way could have cut it.
    """

    strict = False
    distrusted: Distrusted | None = None
    wrappedProtocol: Any
    transport: Any
    _tlsConnection: Any
    _has_finished = False
    _unread = 0

    def accept(self, transport: Any, received: bytes) -> None:
        """Make the connection for a client of which the first bytes have come. Twisted starts the handshake without them."""
        self._tlsConnection = self.factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        self.connected, self.transport = 1, transport
        self.factory.registerProtocol(self)
        self.dataReceived(received)

    def dataReceived(self, data: bytes) -> None:
        connection = self._tlsConnection
        if _lib.BIO_write(connection._into_ssl, data, len(data)) <= 0:
            raise MemoryError
        if not self._handshakeDone:
            self._checkHandshakeStatus()
            if not self._handshakeDone:
                return
        if self._appSendBuffer:
            self._unbufferPendingWrites()
        self._flushReceiveBIO()

    def _checkHandshakeStatus(self) -> None:
        if self._aborted:
            return
        connection = self._tlsConnection
        result = _lib.SSL_do_handshake(connection._ssl)
        if result == 1:
            self._handshakeDone = True
            if IHandshakeListener.providedBy(self.wrappedProtocol):
                self.wrappedProtocol.handshakeCompleted()
            return
        try:
            _expect_more(connection, result)
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            self._flushSendBIO()

    def _write(self, data: bytes) -> None:
        """Encrypt all of it, and send many records in one go. Twisted's sends each by itself."""
        if self._lostTLSConnection:
            return
        connection = self._tlsConnection
        ssl, bio = connection._ssl, connection._from_ssl
        start, at, size, filled = _ffi.from_buffer(data), 0, len(data), 0
        failure = None
        while at < size:
            count = _lib.SSL_write(ssl, start + at, min(size - at, _RECORD))
            if count <= 0:
                try:
                    _expect_more(connection, count)
                except Error:
                    failure = Failure()
                break
            at += count
            # Taken at once: OpenSSL never frees the memory of a connection for the most that has waited there.
            filled += _lib.BIO_read(bio, _BUFFER + filled, _PIECE)
            if filled > _ROOM - _PIECE:
                self.transport.write(_ffi.buffer(_BUFFER, filled)[:])
                filled = 0
        if filled:
            self.transport.write(_ffi.buffer(_BUFFER, filled)[:])
        if failure is not None:
            self._tlsShutdownFinished(failure)
        elif at < size:
            self._bufferedWrite(data[at:])

    def _flushSendBIO(self) -> None:
        data = self._encrypted()
        if data:
            self.transport.write(data)

    def _encrypted(self) -> bytes:
        bio = self._tlsConnection._from_ssl
        count = _lib.BIO_read(bio, _BUFFER, _PIECE)
        if count <= 0:
            return b""
        data: bytes = _ffi.buffer(_BUFFER, count)[:]
        return data if count < _PIECE else data + self._encrypted()

    def _answer(self) -> None:
        """Send what OpenSSL answers by itself; to a client that reads none of it, up to a limit."""
        data = self._encrypted()
        if not data:
            return
        self._unread = self._unread + len(data) if unsent_bytes(below_tls(self.transport)) else 0
        if self._unread > _MOST_UNREAD and not self._lostTLSConnection:
            self._break_off()
        else:
            self.transport.write(data)

    def _flushReceiveBIO(self) -> None:
        if self._lostTLSConnection or self._has_finished:
            return
        pieces: list[bytes] = []
        end: Callable[[], None] | None = None
        connection = self._tlsConnection
        try:
            while (count := _lib.SSL_read(connection._ssl, _BUFFER, _RECORD)) > 0:
                pieces.append(_ffi.buffer(_BUFFER, count)[:])
            _expect_more(connection, count)
        except ZeroReturnError:
            end = self._finished
        except Error:
            end = partial(self._tlsShutdownFinished, Failure())
        if pieces and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if end is not None and not self._lostTLSConnection:
            end()
        if self._tlsConnection is not None:  # the protocol may have ended the connection
            self._answer()

    def _finished(self) -> None:
        self._has_finished = True
        if self._tlsConnection.get_shutdown() & SENT_SHUTDOWN:
            # Both have sent the end: with TLS inside TLS, the outer one may still be broken off, which cuts nothing.
            self._reason = self._reason or connectionDone
            self._tlsShutdownFinished(None)
        else:
            self.wrappedProtocol.readConnectionLost()

    def _shutdownTLS(self) -> None:
        if not self._aborted:
            super()._shutdownTLS()
            if self._has_finished:
                self.transport.loseConnection()  # there is no close-notify to wait for

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        if self._producer is not None:
            # The connection below would not close while there is one, and it has no transport to write to now.
            producer = self._producer
            self.unregisterProducer()
            producer.stopProducing()
        super()._tlsShutdownFinished(reason)

    def readConnectionLost(self) -> None:
        if self._has_finished or self._lostTLSConnection:
            return
        if not self._handshakeDone or (self._is_truncated() and self.strict):
            self._break_off()
        else:
            self._finished()

    def _break_off(self) -> None:
        self._reason = Failure(CONNECTION_LOST)
        self._lostTLSConnection = True
        self.transport.abortConnection()

    def _is_truncated(self) -> bool:
        inner = self.wrappedProtocol
        # With TLS inside TLS, the innermost one says whether all has come.
        if isinstance(inner, TLSTransport) or self._tlsConnection.get_shutdown() & SENT_SHUTDOWN:
            return False
        report = getattr(inner, "truncated", None)
        if report is not None:
            report()
        return True

    def writeConnectionLost(self) -> None:
        pass  # no half-close of the connection below is ever requested

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Nothing is left to be read: all that came was passed on at once.
        self._lostTLSConnection = True
        super().connectionLost(reason)
