"""A test case that runs a whole service: the supervisor is this process, and its workers are others."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.folders import make_folder
from tests.support.forks import starter
from tests.support.peers import reactor
from txmux import MuxService, load
from txmux.processes.supervisor.supervisor import Supervisor


class SupervisedTestCase(TestCase):
    """Runs a service from a rules file, which may change.

    Attributes:
        log: Where ``LOG`` in rules leads, for the access log.
    """

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.log = self.folder / "access.log"
        self.file = self.folder / "rules.ini"

    def write(self, text: str) -> None:
        self.file.write_text(text.replace("LOG", str(self.log)))

    def service(self, text: str, *, use: Any = reactor, **options: Any) -> MuxService:
        self.write(text)
        return MuxService(load(self.file), reactor=use, starter=starter(), **options)

    async def run_service(self, text: str, *, use: Any = reactor, **options: Any) -> list[int]:
        self.running = self.service(text, use=use, **options)
        self.running.startService()
        self.addCleanup(self.stop)
        await self.all_serve()
        return self.ports()

    def ports(self) -> list[int]:
        opened = self.running._resources.sockets.sockets().values()
        return [one.getsockname()[1] for one in opened if not isinstance(one.getsockname(), str)]

    @property
    def supervisor(self) -> Supervisor:
        supervisor = self.running.supervisor
        assert supervisor is not None
        return supervisor

    async def all_serve(self) -> None:
        await self.supervisor.all_serve()

    async def _stop(self) -> None:
        if self.running.running:
            if self.running.supervisor is not None:
                self.running.supervisor.end_all()
            await self.running.stopService()

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())
