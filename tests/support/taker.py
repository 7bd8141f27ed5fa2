"""A server that is given sockets, played by a test."""

import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE
from tests.support.folders import make_folder

MOST = 65536


class Taker:
    def __init__(self, case: TestCase, turn: Callable[[], Awaitable[None]]) -> None:
        self._case = case
        self._turn = turn
        self._file = make_folder(case) / "x.sock"
        self.path = str(self._file)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(self.path)
        self.listening.listen(8)
        self.listening.settimeout(0)
        case.addCleanup(self.listening.close)

    @property
    def outcome(self) -> str:
        return f"handover:{self.path}"

    def remove(self) -> None:
        self._file.unlink()

    def full(self) -> socket.socket:
        """Have no room for another client before this one is closed."""
        self.listening.listen(0)
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        waiting.connect(self.path)
        self._case.addCleanup(waiting.close)
        return waiting

    async def given(self) -> tuple[socket.socket, dict[str, Any], socket.socket]:
        while True:
            try:
                giver, _ = self.listening.accept()
                break
            except BlockingIOError:
                await self._turn()
        self._case.addCleanup(giver.close)
        giver.settimeout(PATIENCE)
        message, descriptors, _, _ = socket.recv_fds(giver, MOST, 4)
        (descriptor,) = descriptors
        client = socket.socket(fileno=descriptor)
        self._case.addCleanup(client.close)
        return client, json.loads(message), giver

    async def heard(self, client: socket.socket, count: int) -> bytes:
        heard = b""
        client.settimeout(0)
        while len(heard) < count:
            try:
                more = client.recv(count - len(heard))
            except BlockingIOError:
                await self._turn()
                continue
            if not more:
                break
            heard += more
        client.settimeout(PATIENCE)
        return heard

    async def taken(self) -> tuple[socket.socket, dict[str, Any]]:
        client, told, giver = await self.given()
        giver.send(b"taken")
        client.settimeout(PATIENCE)
        return client, told
