"""The client's side of a TLS handshake, of which a test sends the pieces when it wants to."""

import socket
import ssl
from collections.abc import Callable
from typing import Any


class Handshake:
    def __init__(self, authority: str) -> None:
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=authority)
        self._layer = context.wrap_bio(self._come, self._go, server_hostname="a.example")

    def hello(self) -> bytes:
        if not self._wants(self._layer.do_handshake):
            raise AssertionError("it is over already")
        return self._go.read()

    def finish(self, client: socket.socket) -> None:
        self._until_done(client, self._layer.do_handshake)

    def say(self, client: socket.socket, text: bytes) -> None:
        self._layer.write(text)
        client.sendall(self._go.read())

    def hear(self, client: socket.socket) -> bytes:
        return bytes(self._until_done(client, self._layer.read))

    def _until_done(self, client: socket.socket, step: Callable[[], Any]) -> Any:
        while self._wants(step):
            client.sendall(self._go.read())
            self._come.write(client.recv(2**16))
        client.sendall(self._go.read())
        return self._result

    def _wants(self, step: Callable[[], Any]) -> bool:
        """Take a step, and tell whether it needs more from the other side."""
        try:
            self._result = step()
        except ssl.SSLWantReadError:
            return True
        return False
