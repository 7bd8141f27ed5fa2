"""A test case that runs a service from the text of a rules file."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux import EmbeddedService
from txmux.rules.reading.parser import parse


class ServiceTestCase(TestCase):
    """Runs a service from the text of a rules file."""

    timeout = 12

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.log = self.folder / "access.log"

    def service(self, text: str, *, use: Any = reactor) -> EmbeddedService:
        """Make a service."""
        rules = parse(text.replace("LOG", str(self.log)), self.folder / "rules.ini")
        return EmbeddedService(rules, reactor=use)

    def run_service(self, text: str, *, use: Any = reactor) -> list[int]:
        """Start a service until the test ends, and give its ports."""
        self.running = self.service(text, use=use)
        self.running.startService()
        self.addCleanup(self.stop)
        return [port.getHost().port for port in self.running.ports]  # type: ignore[attr-defined]

    async def _stop(self) -> None:
        serving = self.running.serving
        if serving is not None:
            for factory in serving.factories:
                factory.abort("killed")
            serving.end_all()  # those of older rules
            await self.running.stopService()

    def stop(self) -> Deferred[None]:
        """Stop the service at once."""
        return Deferred.fromCoroutine(self._stop())
