"""Clients whose bytes are compared, and that come again however they were ended."""

from __future__ import annotations

import random
import socket
import threading

from campaign.bytes.streams import Stream
from tests.processes.running import holders

_LONGEST = 2**18
_PATIENCE = 60.0


class Checked(threading.Thread):
    """A client of an echo server that sends a stream of its own each time, and compares what comes back.

    Args:
        port: Where it comes to.
        seed: Its streams and their lengths follow from this and the number.
        number: Which one of several it is.
        first: What each stream begins with.

    Attributes:
        tried: How often it came.
        whole: How often all came back, and the end after it.
        cut: How often its connection was cut off, after bytes that were right.
        unheard: How often nobody had accepted it within a minute.
        defects: What else it met.
        echoed: The bytes that came back.
    """

    def __init__(self, port: int, seed: int, number: int, first: bytes) -> None:
        super().__init__(daemon=True)
        self._port, self._seed, self._number, self._first = port, seed, number, first
        self._chance = random.Random(f"{seed} {number}")
        self._stopped = threading.Event()
        self.tried = self.whole = self.cut = self.unheard = self.echoed = 0
        self.defects: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            self.tried += 1
            try:
                client = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
            except OSError as problem:
                self.defects.append(f"it could not connect: {problem}")
                continue
            with client:
                try:
                    self._talk(client)
                except ConnectionError:
                    self.cut += 1
                except TimeoutError:
                    self._look_at(client)

    def _talk(self, client: socket.socket) -> None:
        trial = self._number << 32 | self.tried
        said, heard = (Stream(self._seed, trial, 0, self._first) for _ in range(2))
        left = self._chance.randint(1, _LONGEST)
        while left:
            count = self._chance.randint(1, min(left, 2**16))
            client.sendall(said.take(count))
            left -= count
            while heard.position < said.position:
                data = client.recv(2**16)
                if not data:
                    self.cut += 1
                    return
                if heard.position + len(data) > said.position or not heard.is_next(data):
                    self.defects.append(f"wrong bytes after {heard.position - len(data)}")
                    return
                self.echoed += len(data)
        client.shutdown(socket.SHUT_WR)
        if client.recv(1):
            self.defects.append("more came than was sent")
        else:
            self.whole += 1

    def _look_at(self, client: socket.socket) -> None:
        """Tell one that waits in the queue of a port, whose processes do not live long enough to accept, from one that hangs."""
        if "process" in (told := holders(client)):
            self.defects.append(f"nothing came any more:\n{told}")
        else:
            self.unheard += 1

    def stop(self) -> None:
        """Come no more, after this time."""
        self._stopped.set()
        self.join(2 * _PATIENCE)
