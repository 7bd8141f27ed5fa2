"""A slow proxy, so that a transfer lasts as long as a test needs."""

import contextlib
import socket
import threading

from tests.support.echo import ThreadServer

_BLOCK = 2**16
_PAUSE = 0.02
"""Seconds between two blocks: some MiB a second each way."""
_LONG_PAUSE = 1.0
"""The same, when enough has passed already."""


class Paced(ThreadServer):
    """Forwards to a server slowly, and very slowly after `most` bytes each way of a connection, until it is released."""

    def __init__(self, server: int, most: int) -> None:
        self._server, self._most = server, most
        self._released = threading.Event()
        self.passed = 0
        self._counting = threading.Lock()
        super().__init__(self._forward)

    def release(self) -> None:
        self._released.set()

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server)) as server:
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()

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
        super().end()
