"""A test case that serves the text of a rules file in its own process."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux import EmbeddedService
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse


class ServiceTestCase(TestCase):
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
