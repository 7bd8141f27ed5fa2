"""A test case that runs a whole service: the supervisor is this process, and its workers are others."""

import gc
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.datagrams import turn
from tests.support.folders import make_folder
from tests.support.forks import starter
from tests.support.peers import Peer, connect, reactor
from txmux import MuxService, load
from txmux.processes.supervisor.supervisor import Supervisor

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"


async def greeted(test: TestCase, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
    client = await connect(test, port)
    client.send(greeting)
    return client


def _descriptors() -> int:
    gc.collect()  # what tests before this one have left would go in between
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


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

    async def change(self, text: str) -> str:
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.errors, ())
        return report.changes

    async def change_refused(self, text: str) -> str:
        """Find that other rules are refused and leave all as it was; give what is told of that."""
        before, descriptors = self._state(), _descriptors()
        self.write(text)
        report = await self.running.reload()
        self.assertEqual((report.ok, report.changes), (False, ""))
        self.assertEqual(self._state(), before)
        # Some are open for a moment only, at any time.
        while _descriptors() > descriptors:
            await turn()
        return "\n".join(report.errors)

    def _state(self) -> tuple[object, ...]:
        return self.inodes(), self.running.control.rules

    def inodes(self) -> list[int]:
        return [
            os.fstat(one.fileno()).st_ino
            for one in self.running._resources.sockets.sockets().values()
        ]

    async def connections(self, count: int) -> None:
        while (await self.running.control.status())["connections"]["active"] != count:
            await turn()

    async def gone(self, client: Peer) -> None:
        """Break off the connection of the only client, and wait until nothing of it is open."""
        client.reset()
        await client.is_lost()
        await self.connections(0)

    async def until_logged(self, *said: str) -> None:
        while not (self.log.exists() and all(one in self.log.read_text() for one in said)):
            await turn()
