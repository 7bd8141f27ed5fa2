"""The process of which workers are forked ends: they go on, and others come."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import (
    WorkersTestCase,
    halted,
    is_gone,
    name_of,
    named,
    starter_of,
    workers_of,
)
from tests.processes.upgrading import Running

if TYPE_CHECKING:
    from collections.abc import Collection

_ENDED = "the process that starts workers has ended"


class StarterTest(WorkersTestCase):
    """``txmux run`` with two workers."""

    def begin(self) -> tuple[Running, list[int]]:
        """Start it, and give its workers, too."""
        self.listening = self.backend()
        mux = self.own(Running(self.folder, self.relaying(self.listening), "workers = 2"))
        return mux, workers_of(mux.pid)

    def kill_starter(self, mux: Running) -> None:
        """End it, and wait for the next one."""
        starter = starter_of(mux.pid)
        os.kill(starter, signal.SIGKILL)
        eventually(lambda: starter not in named(mux.pid, "starter"), "it has ended")
        eventually(lambda: bool(named(mux.pid, "starter")), "it is started again")

    def kill_workers(self, mux: Running, pids: Collection[int], served: int) -> None:
        """End workers, and wait until this many are forked by the starter that there is now, and serve."""
        before = mux.child.output.count("workers that serve: 2")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: mux.child.output.count("workers that serve: 2") > before, "two workers serve"
        )
        self.assertEqual(len(workers_of(mux.pid)), served)
        self.assertTrue(all(name_of(pid) for pid in workers_of(mux.pid)))

    def test_killed(self) -> None:
        """It is started again; workers and their connections go on, and those that are killed later have successors."""
        mux, workers = self.begin()
        client, server = self.relayed(mux, self.listening)
        self.kill_starter(mux)
        mux.child.wait_for(f"warn .*{_ENDED}; another one is started at once")
        client.sendall(b"more")
        self.assertEqual(server.recv(4), b"more")
        self.assertFalse(any(map(is_gone, workers)))
        self.kill_workers(mux, workers[:1], 1)
        self.kill_workers(mux, workers[1:], 2)
        self.assertNotIn(workers[0], workers_of(mux.pid))
        for _ in self.one_for_each(mux, workers_of(mux.pid)):
            pass
        self.assertIn("rules reloaded", mux.reload("workers = 2", "workers = 3"))
        self.assertEqual(len(workers_of(mux.pid)), 3)

    def test_halted(self) -> None:
        """While it is halted, and cannot report the end of a worker, the service can be stopped."""
        mux, workers = self.begin()
        mux.reload("workers = 2", "workers = 2\ndrain_timeout = 0s")
        with halted([starter_of(mux.pid)]):
            os.kill(workers[0], signal.SIGKILL)
            mux.stop()
        self.assert_gone(workers)

    def test_worker_meanwhile(self) -> None:
        """A worker that ends while there is no such process has a successor when there is one again."""
        mux, workers = self.begin()
        self.kill_starter(mux)
        # The next one is started a second after its predecessor.
        os.kill(starter_of(mux.pid), signal.SIGKILL)
        mux.child.wait_for(f"{_ENDED}; another one is started in 1 s")
        self.assertEqual(named(mux.pid, "starter"), [])
        self.kill_workers(mux, workers, 2)
        self.relayed(mux, self.listening)

    def test_with_its_workers(self) -> None:
        """So it is when all of them end in one moment; clients that come meanwhile are served then."""
        mux, workers = self.begin()
        os.kill(mux.pid, signal.SIGSTOP)
        try:
            for pid in (starter_of(mux.pid), *workers):
                os.kill(pid, signal.SIGKILL)
            client = self.client(mux)
            client.sendall(b"x")
        finally:
            os.kill(mux.pid, signal.SIGCONT)
        self.accept_from(self.listening, b"x")
        mux.child.wait_for("(?s)workers that serve: 2.*workers that serve: 2")
        self.assertEqual(len(workers_of(mux.pid)), 2)
