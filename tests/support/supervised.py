import gc
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import PATIENCE
from tests.support.datagrams import turn
from tests.support.folders import make_folder
from tests.support.forks import starter
from tests.support.mux import VirtualTime
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from tests.support.proc import halted
from txmux import MuxService, load
from txmux.control.broadcast import broadcast
from txmux.control.conditions import Coalescer
from txmux.control.connections import list_connections
from txmux.control.filters import Filters
from txmux.control.report import Report
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel
from txmux.net.channel.message import Message
from txmux.processes.supervisor.resources import Resources
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.supervisor.worker import Worker

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"
WORKERS = f"[txmux]\nworkers = {{}}\n{LISTEN}"


async def greeted(test: TestCase, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
    client = await connect(test, port)
    client.send(greeting)
    return client


async def is_let_in(test: TestCase, port: int, server: PeerFactory) -> bool:
    count = len(server.peers)
    client = await greeted(test, port)
    while not client.finished and len(server.peers) == count:
        await deferLater(reactor, 0)
    return not client.finished


def _descriptors() -> set[str]:
    """Return what each descriptor leads to: what tests before this one have left may go meanwhile."""
    found = set[str]()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the folder itself
            found.add(f"{one.name}: {one.readlink()}")
    return found


def resources_of(service: MuxService) -> Resources:
    return service._resources


def channel_of(worker: Worker) -> Channel:
    assert worker._channel is not None
    return worker._channel


def note_questions(test: TestCase) -> list[tuple[Message, dict[str, Any]]]:
    """Return a list of what workers are asked from now on, by which message and with which values."""
    asked: list[tuple[Message, dict[str, Any]]] = []
    ask = Worker.ask

    def note(worker: Worker, message: Message, **values: Any) -> Deferred[Any]:
        asked.append((message, values))
        return ask(worker, message, **values)

    test.patch(Worker, "ask", note)
    return asked


def sockets_of(service: MuxService) -> list[socket.socket]:
    return [*resources_of(service).sockets.sockets().values()]


class LiveService:
    """A service that routes SSH to a backend, as the test's `relay`, `workers` and `patience` say."""

    def __init__(self, test: "SupervisedTestCase") -> None:
        self._test = test
        self.backend = PeerFactory()

    @cached_property
    def server(self) -> int:
        return listen(self._test, self.backend)

    def text(self, more: str = "", backend: str = "", settings: str = "") -> str:
        return (
            f"[txmux]\naccess_log = LOG\nrelay = {self._test.relay}\nworkers = {self._test.workers}\n{settings}"
            f"[listen public]\nendpoint = 127.0.0.1:0\n{more}"
            f"[route ssh]\nmatch = ssh\nbackend = b\n[backend b]\nserver = 127.0.0.1:{self.server}\n{backend}"
        )

    async def begin(
        self, more: str = "", backend: str = "", settings: str = "", *, use: Any = reactor
    ) -> int:
        patience: Any = self._test.patience
        patched = patch.dict(broadcast.__kwdefaults__, seconds=patience, prompt=patience)
        self._test.enterContext(patched)
        (port,) = await self._test.run_service(self.text(more, backend, settings), use=use)
        return port

    async def listed(self, count: int, **words: str) -> list[Any]:
        while True:
            await deferLater(reactor, 0)
            found = await list_connections(self._test.running.control, Filters.read(words))
            self._test.assertEqual(found.missing, [])
            if len(found) == count:
                return found

    async def logged(self, count: int, reason: str = "killed") -> str:
        while (text := self._test.log.read_text()).count(f"reason={reason}") != count:
            await deferLater(reactor, 0)
        return text

    async def client(self, port: int, said: bytes = b"SSH-2.0-a\r\n") -> Peer:
        return await greeted(self._test, port, said)

    async def spread(self, port: int) -> list[Peer]:
        """Connect two clients to each of two workers, while the other one is halted: which one accepts is chance otherwise."""
        clients: list[Peer] = []
        for worker in self._test.supervisor.pool.workers:
            with halted([worker.pid]):
                for _ in range(2):
                    clients.append(await self.client(port))
                    while sum(b"SSH" in one.received for one in self.backend.peers) < len(clients):
                        await deferLater(reactor, 0)
        workers = [row["worker"] for row in await self.listed(len(clients), state="relaying")]
        self._test.assertEqual(sorted(workers), [1, 1, 2, 2])
        return clients


class SupervisedTestCase(TestCase):
    """Runs a service from a rules file, which may change.

    Attributes:
        log: Where ``LOG`` in rules leads, for the access log.
        time: A clock that the test moves, for a supervisor that is to `use` it.
        live: Runs a service that routes SSH.
        patience: Seconds that a worker of `live` has to answer; on a busy machine the usual ones are not enough.
    """

    relay = "auto"
    workers = 1
    patience = 60.0

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.log = self.folder / "access.log"
        self.file = self.folder / "rules.ini"
        self.time = VirtualTime()
        self.live = LiveService(self)

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
        await self.run_service(WORKERS.format(2), use=self.time)
        return self.pids()

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.supervisor.pool.workers]

    def starter(self) -> int:
        connection = self.starter_connection()
        return 0 if connection is None else connection.child.pid

    def starter_connection(self) -> Any:
        supervisor = self.running.supervisor  # None once the service has stopped
        return None if supervisor is None else supervisor.starter.connection

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, in no virtual time; what is due at once is done."""
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), deadline, "it does not come about")
            self.time.advance(0)
            await deferLater(reactor, 0)

    async def looked(self) -> None:
        """Wait until a look at the rules' files has ended; a reload that comes of it may go on."""
        await self.running._watch.looking

    @property
    def reloading(self) -> Coalescer[Report]:
        """What a look reloads by that has found a change."""
        return self.running._reloading

    async def killed(self, *workers: Worker) -> None:
        """Kill workers, and wait until others serve in their place."""
        old = {worker.pid for worker in workers}
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        while not self.supervisor.pool.are_ready() or old & {*self.pids()}:
            self.time.advance(0)
            await deferLater(reactor, 0.01)

    async def pass_by(self, seconds: int, *workers: Worker, starter: bool = True) -> None:
        """Let seconds pass, in each of which these workers, and the starter, have the time to answer."""
        for _ in range(seconds):
            self.time.advance(1)
            await self.until(lambda: not any(worker.awaits_answer for worker in workers))
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
