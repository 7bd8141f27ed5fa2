"""Workers are asked whether they do their work, and replaced if they do not answer."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.interop.children import eventually
from tests.processes.running import (
    RULES,
    WorkersTestCase,
    halted,
    has_connection,
    listening_inode,
    open_files,
    workers_of,
)
from tests.support.load import Load
from tests.support.mux import VirtualTime
from tests.support.peers import reactor
from tests.support.supervised import SupervisedTestCase

if TYPE_CHECKING:
    import socket

    from tests.interop.mux import Mux
    from txmux.processes.workers.worker import Worker


_KILLED = 6
"""Workers that are killed one after another, of five: one more than once."""


class SilentTest(SupervisedTestCase):
    """Real workers, and a clock of their supervisor that the test moves."""

    async def begin(self) -> list[int]:
        """Start a service with two workers."""
        self.time = VirtualTime()
        await self.run_service(
            "[txmux]\nworkers = 2\n[listen x]\nendpoint = 127.0.0.1:0\n", use=self.time
        )
        return self.pids()

    def pids(self) -> list[int]:
        """Give the workers."""
        return [worker.pid for worker in self.supervisor.pool.workers]

    async def test_stopped(self) -> None:
        """One that has not answered for ten seconds is killed and replaced at once; the others are left alone."""
        before = await self.begin()
        first, second = self.supervisor.pool.workers
        await self.pass_by(12, first, second)
        self.assertEqual(self.pids(), before)
        os.kill(first.pid, signal.SIGSTOP)
        with capturedLogs() as events:
            await self.pass_by(10, second)
            self.assertEqual(self.pids(), before)
            self.assertTrue(second.answers)
            self.assertFalse(first.answers)
            self.time.advance(1)
            while not first.answers or not first.ready:
                await deferLater(reactor, 0)
        said = [event["log_format"].format(**event) for event in events if "seconds" in event]
        self.assertEqual(
            said,
            [
                "worker 1 has not answered for 10 s; it is killed, and another one is started at once"
            ],
        )
        after = self.pids()
        self.assertEqual(set(before) - set(after), {before[0]})
        self.assertEqual(len(after), 2)

    async def test_asleep(self) -> None:
        """A machine that was asleep for an hour has no silent workers."""
        before = await self.begin()
        self.time.advance(3600)
        await self.pass_by(1, *self.supervisor.pool.workers)
        self.assertEqual(self.pids(), before)

    async def pass_by(self, seconds: int, *workers: Worker) -> None:
        """Let seconds pass, in each of which these workers have the time to answer."""
        for _ in range(seconds):
            self.time.advance(1)
            while not all(worker._silent == 0 for worker in workers):
                await deferLater(reactor, 0)


class KilledTest(WorkersTestCase):
    """Workers are killed under load."""

    def test_again_and_again(self) -> None:
        """Only the connections of the killed one end, and no new client waits for another one in its place."""
        listening = self.backend()
        port = listening.getsockname()[1]
        rules = f"{RULES}[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:{port}\n"
        mux = self.start(rules, "workers = 5")  # so that none has to wait for long
        self.addCleanup(mux.stop)
        load = [Load(mux.port) for _ in range(4)]
        for one in load:
            one.start()
        for _ in range(_KILLED):
            held = [self.held(mux, listening) for _ in range(12)]
            # One that was killed before may still be among the children.
            victim = next(pid for pid in serving(mux, 2) if has_connection(pid, held[0][1]))
            owned = [has_connection(victim, server) for _, server in held]
            with halted([mux.child.pid]):  # so there is no other one
                os.kill(victim, signal.SIGKILL)
                for (client, server), was_owned in zip(held, owned, strict=True):
                    self.assertEqual(goes_on(client, server), not was_owned)
                    client.close()
                    server.close()
                for _ in range(8):
                    self.be_closed(mux)
        eventually(lambda: sum(one.served for one in load) > 100, "clients are served")
        for one in load:
            one.stop()
        self.assertEqual([one.refused for one in load], [0] * len(load))
        # A client whose connection was already the victim's is cut off; nobody else is.
        self.assertLessEqual(sum(one.cut for one in load), _KILLED * len(load))

    def held(self, mux: Mux, listening: socket.socket) -> tuple[socket.socket, socket.socket]:
        """Have a connection relayed."""
        client = self.client(mux)
        client.sendall(b"SSH-2.0-x\r\n")
        return client, self.accept_from(listening, b"SSH-2.0-x\r\n")


def goes_on(client: socket.socket, server: socket.socket) -> bool:
    """Tell whether a connection carries bytes both ways."""
    try:
        client.sendall(b"y")
        server.sendall(b"z")
        return (client.recv(1), server.recv(1)) == (b"z", b"y")
    except OSError:
        return False


def serving(mux: Mux, count: int) -> list[int]:
    """Wait until this many workers accept, and give all that do, the oldest first."""
    socket_name = f"socket:[{listening_inode(mux.port)}]"
    found: list[int] = []

    def are_enough() -> bool:
        found[:] = [pid for pid in workers_of(mux.child.pid) if socket_name in open_files(pid)]
        return len(found) >= count

    eventually(are_enough, f"{count} workers serve")
    return found
