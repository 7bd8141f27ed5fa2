import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.folders import make_folder
from tests.support.peers import Peer, connect, reactor
from txmux import EmbeddedService
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse

HEAD = "[txmux]\naccess_log = LOG\naccess_log_format = json\n"
PUBLIC = "[listen public]\nendpoint = 127.0.0.1:0\n"


class ServiceTestCase(TestCase):
    """Serves rules in this process.

    Attributes:
        log: Where ``LOG`` in rules leads, for the access log.
    """

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.log = self.folder / "access.log"

    def parsed(self, text: str) -> Rules:
        return parse(text.replace("LOG", str(self.log)), self.folder / "rules.ini")

    def service(self, text: str, *, use: Any = reactor) -> EmbeddedService:
        return EmbeddedService(self.parsed(text), reactor=use)

    def run_service(self, text: str, *, use: Any = reactor) -> list[int]:
        self.running = self.service(text, use=use)
        self.running.startService()
        self.addCleanup(self.stop)
        return self.ports()

    def ports(self) -> list[int]:
        return [getattr(port.getHost(), "port", 0) for port in self.running.ports]

    def reload(self, text: str) -> int:
        return self.running.reload(self.parsed(text))

    async def _stop(self) -> None:
        serving = self.running.serving
        if serving is not None:
            for listener in serving.listeners:
                listener.abort("killed")
            serving.end_all()  # those of older rules
            await self.running.stopService()

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

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
