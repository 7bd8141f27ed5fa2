"""The processes that play clients and servers, as one."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from campaign.bytes.clients import Job, come
from campaign.bytes.places import Places
from campaign.bytes.servers import serve
from campaign.bytes.talks import Seen

PROCESSES = 2
"""Of clients; as many serve."""
_GRACE = 30.0
"""Seconds after which whoever has not ended is not waited for, though each connection is given up before."""


class Crew:
    """The processes that play clients and servers."""

    def __init__(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmux-bytes-"))
        self.places = Places(self.folder)
        self.places.open()
        self._processes: list[Any] = []
        self._clients: list[Connection] = []
        self._servers: list[Connection] = []
        for number in range(PROCESSES):
            members = self.places.members[number::PROCESSES]
            self._servers.append(self._start(serve, self.places, members, seed))
        for _ in range(PROCESSES):
            self._clients.append(self._start(come, seed))

    def _start(self, run: Any, *arguments: Any) -> Connection:
        by = multiprocessing.get_context("fork")
        here, there = by.Pipe()
        process = by.Process(target=_be, args=(run, here, there, *arguments), daemon=True)
        process.start()
        there.close()
        self._processes.append(process)
        return here

    def run(
        self, job: Job, tick: Callable[[], None] = lambda: None, *, changing: bool = False
    ) -> tuple[list[Seen], list[Seen]]:
        """Have clients come, and give what they and the servers have seen."""
        for control in self._servers:
            control.send(("round", (job.mix, changing)))
        for number, control in enumerate(self._clients):
            control.send(attrs.evolve(job, trials=job.trials[number::PROCESSES]))
        seen = self._heard_of_clients(job, tick)
        at_servers: list[Seen] = []
        for control in self._servers:
            control.send(("seen", None))
        for control in self._servers:
            if not control.poll(job.mix.patience + _GRACE):
                raise AssertionError("the campaign's own servers do not end")
            at_servers += control.recv()
        return seen, at_servers

    def _heard_of_clients(self, job: Job, tick: Callable[[], None]) -> list[Seen]:
        waiting, seen = list(self._clients), []
        deadline = job.until + job.mix.patience + _GRACE
        while waiting:
            if time.monotonic() > deadline:
                raise AssertionError("the campaign's own clients do not end")
            for control in list(waiting):
                if control.poll(0.05):
                    seen += control.recv()
                    waiting.remove(control)
            if waiting:
                tick()
        return seen

    def end(self) -> None:
        for control in (*self._clients, *self._servers):
            control.close()
        for process in self._processes:
            process.terminate()
            process.join()
        self.places.close()
        shutil.rmtree(self.folder)


def _be(run: Any, here: Connection, there: Connection, *arguments: Any) -> None:
    here.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run(there, *arguments)
