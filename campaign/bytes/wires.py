"""A connection as one of its ends sees it: plain, or with TLS on it. Nothing waits."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Protocol

from OpenSSL import SSL
from typing_extensions import override

_RESET = struct.pack("ii", 1, 0)  # linger, but for no time at all
_RAW = 2**16
_ENOUGH = 2**17


class TruncatedError(OSError):
    """TLS ended without a close-notify: whoever looks knows that it is not whole."""


class Wire(Protocol):
    """What a `Talk` needs of a connection; errors of it are `OSError`."""

    socket: socket.socket
    is_opening: bool  # nothing can be sent before something has come

    def send(self, data: bytes) -> int:
        """Send what is taken at once, and tell how much that was."""

    def recv(self, most: int) -> bytes | None:
        """Give what has come, nothing at the end, or ``None`` if there is nothing yet."""

    def flush(self) -> bool:
        """Send what was taken before, and tell whether nothing is left."""

    def finish(self) -> None:
        """Tell the peer that this was all."""

    def conclude(self) -> None:
        """The same, where to close the socket does not say it."""

    def can_read(self) -> bool:
        """Tell whether something has come that the socket does not know of any more."""


class Plain:
    """Just a socket."""

    is_opening = False

    def __init__(self, connected: socket.socket, left: bytes = b"") -> None:
        self.socket = connected
        self._left = left

    def send(self, data: bytes) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def recv(self, most: int) -> bytes | None:
        if self._left:
            data, self._left = self._left[:most], self._left[most:]
            return data
        try:
            return self.socket.recv(most)
        except BlockingIOError:
            return None

    def flush(self) -> bool:
        return True

    def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def conclude(self) -> None:
        pass

    def can_read(self) -> bool:
        return bool(self._left)


class Secure:
    """TLS on a socket. A close-notify is the end of one direction; the other goes on."""

    def __init__(
        self,
        connected: socket.socket,
        context: SSL.Context,
        name: bytes | None = None,
        left: bytes = b"",
    ) -> None:
        self.socket = connected
        self._tls = SSL.Connection(context, None)
        self._out = b""
        self._has_more = bool(left)
        self.is_opening = False
        if name is None:
            self._tls.set_accept_state()
        else:
            self._tls.set_tlsext_host_name(name)
            self._tls.set_connect_state()
        if left:
            self._tls.bio_write(left)

    def send(self, data: bytes) -> int:
        if len(self._out) > _ENOUGH and not self.flush():
            return 0
        sent = 0
        try:
            while sent < len(data):
                sent += self._tls.send(data[sent : sent + 2**14])
            self.is_opening = False
        except SSL.WantReadError:
            self.is_opening = True
        except SSL.Error as problem:
            raise ConnectionAbortedError(f"TLS: {problem}") from None
        self._collect()
        self.flush()
        return sent

    def recv(self, most: int) -> bytes | None:
        while True:
            try:
                return self._tls.recv(most)
            except SSL.WantReadError:
                self._has_more = False
                self._collect()
                self.flush()
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as problem:
                raise ConnectionAbortedError(f"TLS: {problem}") from None
            try:
                raw = self._take(_RAW)
            except BlockingIOError:
                return None
            if not raw:
                raise TruncatedError("the end without a close-notify")
            self._tls.bio_write(raw)
            self._has_more = True

    def _take(self, most: int) -> bytes:
        return self.socket.recv(most)

    def _give(self, data: bytes) -> int:
        return self.socket.send(data)

    def _collect(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._out += self._tls.bio_read(_RAW)

    def flush(self) -> bool:
        if self._out:
            with contextlib.suppress(BlockingIOError):
                self._out = self._out[self._give(self._out) :]
        return not self._out

    def finish(self) -> None:
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
        self._collect()
        self.flush()

    conclude = finish

    def can_read(self) -> bool:
        return self._has_more


class Nested(Secure):
    """TLS inside TLS, as a client has it."""

    def __init__(self, outer: Secure, context: SSL.Context, name: bytes) -> None:
        self._outer = outer
        self._is_ending = False
        super().__init__(outer.socket, context, name)

    @override
    def _take(self, most: int) -> bytes:
        data = self._outer.recv(most)
        if data is None:
            raise BlockingIOError
        return data

    @override
    def _give(self, data: bytes) -> int:
        return self._outer.send(data)

    @override
    def flush(self) -> bool:
        is_empty = super().flush()
        if is_empty and self._is_ending:
            self._is_ending = False
            self._outer.finish()
        # what waits for the handshake outside does not wait for room
        return self._outer.flush() and (is_empty or self._outer.is_opening)

    @override
    def finish(self) -> None:
        self._is_ending = True
        super().finish()

    conclude = finish

    @override
    def can_read(self) -> bool:
        return super().can_read() or self._outer.can_read()


def break_off(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connected.close()
