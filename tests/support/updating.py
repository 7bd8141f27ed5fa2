"""A client of TLS 1.3 that wants other keys again and again. By OpenSSL itself, since neither Python nor pyOpenSSL can."""

import ctypes
import ctypes.util
import select
import socket
import struct

from tests.interop.children import PATIENCE

_UPDATE_REQUESTED = 1  # RFC 8446, section 4.6.3


class UpdatingClient:
    def __init__(self, port: int) -> None:
        self._library = library = ctypes.CDLL(ctypes.util.find_library("ssl"))
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(
            library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method()))
        )
        self._tls = ctypes.c_void_p(library.SSL_new(self._context))
        self.plain = socket.socket()
        self.plain.settimeout(PATIENCE)
        # The less the kernel takes in our place, the sooner answers wait at the other end.
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.plain.connect(("127.0.0.1", port))
        library.SSL_set_fd(self._tls, self.plain.fileno())
        self.plain.setblocking(True)  # noqa: FBT003 - the socket module's signature
        if library.SSL_connect(self._tls) != 1:
            self.close()
            raise ConnectionError("no TLS")
        self.plain.setblocking(False)  # noqa: FBT003

    def say(self, data: bytes) -> None:
        self._library.SSL_write(self._tls, data, len(data))

    def hear(self, size: int) -> bytes:
        heard, piece = b"", ctypes.create_string_buffer(size)
        while len(heard) < size:
            got = self._library.SSL_read(self._tls, piece, size - len(heard))
            if got > 0:
                heard += piece.raw[:got]
            elif not self.is_open() or not select.select([self.plain], (), (), PATIENCE)[0]:
                raise ConnectionError("the connection has ended")
        return heard

    def is_open(self) -> bool:
        # To read would not tell: what has come before stays there to be read.
        poll = select.poll()
        poll.register(self.plain, select.POLLRDHUP)
        return not poll.poll(0)

    def update(self) -> bool:
        self._library.SSL_key_update(self._tls, _UPDATE_REQUESTED)
        return bool(self._library.SSL_do_handshake(self._tls) == 1)

    def close(self) -> None:
        self._library.SSL_free(self._tls)
        self._library.SSL_CTX_free(self._context)
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.plain.close()
