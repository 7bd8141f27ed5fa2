"""Clients that keep reconnecting while a service changes."""

import socket
import threading

from tests.interop.children import PATIENCE


class Load(threading.Thread):
    """A client that reconnects as soon as it has been served.

    Args:
        hears: The expected answer; empty if the connection is to be closed.
    """

    def __init__(self, port: int, says: bytes = b"x", hears: bytes = b"") -> None:
        super().__init__(daemon=True)
        self._port = port
        self._says, self._hears = says, hears
        self._stopped = threading.Event()
        self.served = self.cut = self.refused = 0

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            try:
                client = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            except OSError:
                self.refused += 1
                continue
            with client:
                try:
                    client.sendall(self._says)
                    is_right = client.recv(100) == self._hears
                except OSError:
                    is_right = False
                self.served += is_right
                self.cut += not is_right

    def stop(self) -> None:
        self._stopped.set()
        self.join(2 * PATIENCE)
