"""A test case that runs a whole service: the supervisor is this process, and its workers are others."""

import gc
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE
from tests.support.datagrams import turn
from tests.support.folders import make_folder
from tests.support.forks import starter
from tests.support.mux import VirtualTime
from tests.support.peers import Peer, PeerFactory, connect, reactor
from tests.support.proc import halted
from txmux import MuxService, load
from txmux.net.channel import messages
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.supervisor.worker import Worker

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"
WORKERS = f"[txmux]\nworkers = {{}}\n{LISTEN}"


async def greeted(test: TestCase, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
    client = await connect(test, port)
    client.send(greeting)
    return client


def _descriptors() -> set[str]:
    """Return what each descriptor leads to: what tests before this one have left may go meanwhile."""
    found = set[str]()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the folder itself
            found.add(f"{one.name}: {one.readlink()}")
    return found


def sockets_of(service: MuxService) -> list[socket.socket]:
    """Return the sockets that listen for clients."""
    return [*service._resources.sockets.sockets().values()]


class SupervisedTestCase(TestCase):
    """Runs a service from a rules file, which may change.

    Attributes:
        log: Where ``LOG`` in rules leads, for the access log.
        time: A clock that the test moves, for a supervisor that is to `use` it.
    """

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.log = self.folder / "access.log"
        self.file = self.folder / "rules.ini"
        self.time = VirtualTime()

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
        names = [one.getsockname() for one in sockets_of(self.running)]
        return [name[1] for name in names if not isinstance(name, str)]

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
        while _descriptors() - descriptors:
            gc.collect()
            await turn()
        return "\n".join(report.errors)

    def _state(self) -> tuple[object, ...]:
        return self.inodes(), self.running.control.rules

    def inodes(self) -> list[int]:
        return [os.fstat(one.fileno()).st_ino for one in sockets_of(self.running)]

    async def connections(self, count: int) -> None:
        while (await self.running.control.status())["connections"]["active"] != count:
            await turn()

    async def gone(self, client: Peer) -> None:
        """Break off the connection of the only client, and wait until nothing of it is open."""
        client.reset()
        await client.is_lost()
        await self.connections(0)

    async def client_of_each(self) -> list[Peer]:
        """Connect a client to each of the workers, of which none has one."""
        workers = {worker.pid: worker for worker in self.supervisor.pool.workers}
        found: list[Peer] = []
        for pid in workers:
            with halted({*workers} - {pid}):
                found.append(await connect(self, self.ports()[0]))
                found[-1].send(b"x")
                while not (await workers[pid].ask(messages.STATUS))["active"]:
                    await turn()
        return found

    async def all_lead_to(self, server: PeerFactory) -> None:
        before = len(server.peers)
        clients = await self.client_of_each()
        peers = [await server.heard(1, before + number) for number in range(len(clients))]
        for end in (*clients, *peers):
            end.close()
        await self.connections(0)

    # Services with a supervisor whose time stands still unless the test moves it.

    async def run_two(self) -> list[int]:
        """Run a service with two workers, and return their processes."""
        await self.run_service(WORKERS.format(2), use=self.time)
        return self.pids()

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.supervisor.pool.workers]

    def starter(self) -> int:
        """Give the process of which workers are forked; 0 if there is none."""
        connection = self.starter_connection()
        return 0 if connection is None else connection._child.pid

    def starter_connection(self) -> Any:
        supervisor = self.running.supervisor  # None once the service has stopped
        return None if supervisor is None else supervisor.starter._connection

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, in no virtual time; what is due at once is done."""
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), deadline, "it does not come about")
            self.time.advance(0)
            await deferLater(reactor, 0)

    async def pass_by(self, seconds: int, *workers: Worker, starter: bool = True) -> None:
        """Let seconds pass, in each of which these workers, and the starter, have the time to answer."""
        for _ in range(seconds):
            self.time.advance(1)
            await self.until(lambda: not any(worker._awaits_answer for worker in workers))
            await self.until(lambda: not starter or self.has_starter_answered())

    def has_starter_answered(self) -> bool:
        connection = self.starter_connection()
        return connection is None or connection.is_idle

    async def starter_answers(self) -> None:
        self.supervisor.starter.look()
        await self.until(lambda: self.starter() and self.has_starter_answered())

    async def until_logged(self, *said: str) -> None:
        while not (self.log.exists() and all(one in self.log.read_text() for one in said)):
            await turn()
