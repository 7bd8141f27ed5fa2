"""A slow proxy, so that a transfer lasts as long as a test needs."""

import contextlib
import socket
import threading

_BLOCK = 2**16
_PAUSE = 0.02
"""Seconds between two blocks: some MiB a second each way."""
_LONG_PAUSE = 1.0
"""The same, when enough has passed already."""


class Paced:
    """Forwards to a server slowly, and very slowly after `most` bytes each way of a connection, until it is released."""

    def __init__(self, server: int, most: int) -> None:
        self._server = server
        self._most = most
        self._released = threading.Event()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.passed = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        self._released.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has been closed
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += client, server
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                self._released.wait(_PAUSE if passed < self._most else _LONG_PAUSE)
                target.sendall(data)
                passed += len(data)
                with self._counting:
                    self.passed += len(data)
            target.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self.release()
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
