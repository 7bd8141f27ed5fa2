"""Servers of few lines, for protocols whose real servers cannot be installed beside others."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Responder:
    """Answers datagrams, in a thread.

    Args:
        port: Its port of 127.0.0.1.
        answer: Gives the answer to a datagram; nothing is sent if it is empty.

    Attributes:
        heard: The datagrams so far.
    """

    def __init__(self, port: int, answer: Callable[[bytes], bytes]) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(30)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(65536)
            if not data:
                return
            self.heard.append(data)
            if answer := self._answer(data):
                self._socket.sendto(answer, client)
