"""The supervisor is killed while clients come, and systemd starts the service again with the sockets that it has kept."""

import asyncio
import os
import signal
import socket
import threading
from collections import Counter

import pytest

from tests.interop.children import PATIENCE, eventually
from tests.processes.manager import Manager
from tests.processes.running import RULES, WorkersTestCase
from tests.support.folders import make_folder
from tests.support.proc import family_of, is_gone

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]

_PAUSE = 0.001
_ENOUGH = 200
"""Clients before the supervisor is killed, and after there is another one."""
_MOST_WAIT = 500
"""Far less than the queue takes, and than descriptors: where the machine is busy, a new process may be long in coming."""


class _Clients:
    """One each millisecond, unless very many wait, each of which says something and is to be told that all is over.

    Args:
        port: Where they connect.

    Attributes:
        begun: How many have come.
        outcomes: What has become of them.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.begun = 0
        self.outcomes: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        tasks = []
        while not self._is_over.is_set():
            if self.begun - self.outcomes.total() < _MOST_WAIT:
                self.begun += 1
                tasks.append(asyncio.create_task(self._visit()))
            await asyncio.sleep(_PAUSE)
        await asyncio.gather(*tasks)

    async def _visit(self) -> None:
        loop = asyncio.get_running_loop()
        step = "connect"
        with socket.socket() as client:
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            try:
                await loop.sock_connect(client, ("127.0.0.1", self._port))
                step = "served"
                await loop.sock_sendall(client, b"x")
                said = await loop.sock_recv(client, 1)
            except OSError as problem:
                self.outcomes[f"{step}: {type(problem).__name__}"] += 1
            else:
                self.outcomes[f"{step}: {said!r}"] += 1

    def finish(self) -> Counter[str]:
        self._is_over.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise AssertionError(f"some wait for ever: {self.outcomes}")
        return self.outcomes


class StoreLoadTest(WorkersTestCase):
    def killed(self, settings: str) -> Counter[str]:
        manager = Manager(make_folder(self))
        self.addCleanup(manager.close)
        mux = self.start(RULES, settings, manager.environment())
        manager.wait_for(READY="1")
        clients = _Clients(mux.port)
        self.more(clients)
        others = family_of(mux.child.pid)[1:]
        os.kill(mux.child.pid, signal.SIGKILL)
        mux.child.process.wait(PATIENCE)
        mux = self.start(RULES, settings, manager.environment())
        manager.wait_for(READY="1")
        eventually(lambda: all(map(is_gone, others)), "the old workers have ended")
        self.more(clients)
        outcomes = clients.finish()
        mux.stop()
        return outcomes

    def more(self, clients: _Clients) -> None:
        before = clients.outcomes.total()
        eventually(lambda: clients.outcomes.total() >= before + _ENOUGH, "clients are served")

    def test_killed(self) -> None:
        """Nobody is refused, or cut off: what workers have accepted they serve, and the rest waits."""
        for settings in ("", "workers = 2"):
            self.assertEqual({*self.killed(settings)}, {"served: b''"})
