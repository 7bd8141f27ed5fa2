"""A test case with a service, and its servers and clients."""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from tests.support.peers import Peer, connect, reactor
from tests.support.service import ServiceTestCase

HEAD = "[txmux]\naccess_log = LOG\naccess_log_format = json\n"
PUBLIC = "[listen public]\nendpoint = 127.0.0.1:0\n"


class BackendsCase(ServiceTestCase):
    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.005)

    async def logged(self, count: int) -> dict[str, Any]:
        await self.until(lambda: len(self.lines()) >= count)
        self.assertEqual(len(self.lines()), count)
        return self.lines()[-1]

    async def client(self, port: int, data: bytes = b"x", source: str = "") -> Peer:
        client = await connect(self, port, source=source)
        client.send(data)
        return client

    async def finish(self, *ends: Peer) -> None:
        for end in ends:
            end.close()
        for end in ends:
            await end.is_lost()
