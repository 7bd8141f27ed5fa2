"""Byte truth: every byte of very many connections is looked at, and every line of the access log compared."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tests.campaign.bytes.clients import Job, come
from tests.campaign.bytes.judging import Verdict, judge
from tests.campaign.bytes.places import Places
from tests.campaign.bytes.rounds import SERVERS, Service, choose
from tests.campaign.bytes.servers import PATIENCE, serve
from tests.campaign.report import Report

if TYPE_CHECKING:
    import random
    from multiprocessing.connection import Connection

    from tests.campaign.budget import Budget
    from tests.campaign.bytes.rounds import Round
    from tests.campaign.bytes.talks import Seen

PROCESSES = 2
"""Of clients; as many serve."""
TRIALS = 10_000
"""Connections of one round, at most."""
_SECONDS = 60.0
"""The same, for seconds."""
_LEAST = 5.0
"""Seconds that clients come in a round, however late it is."""
_PAUSE = 4.0
"""Seconds from one change to the next, on average."""


class Crew:
    """The processes that play clients and servers.

    Args:
        seed: Of the campaign.
    """

    def __init__(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmux-bytes-"))
        self.places = Places(self.folder)
        self.places.open()
        self._processes: list[Any] = []
        self.clients: list[Connection] = []
        self.servers: list[Connection] = []
        for number in range(PROCESSES):
            members = self.places.members[number::PROCESSES]
            self.servers.append(self._start(serve, self.places, members, seed))
        for _ in range(PROCESSES):
            self.clients.append(self._start(come, seed))

    def _start(self, run: Any, *arguments: Any) -> Connection:
        by = multiprocessing.get_context("fork")
        here, there = by.Pipe()
        process = by.Process(target=_be, args=(run, here, there, *arguments), daemon=True)
        process.start()
        there.close()
        self._processes.append(process)
        return here

    def end(self) -> None:
        """End them."""
        for control in (*self.clients, *self.servers):
            control.close()
        for process in self._processes:
            process.terminate()
            process.join()
        self.places.close()
        shutil.rmtree(self.folder)


def _be(run: Any, here: Connection, there: Connection, *arguments: Any) -> None:
    here.close()
    run(there, *arguments)


@attrs.define
class _Rounds:
    """Goes from round to round."""

    budget: Budget
    crew: Crew
    whole: Verdict = attrs.field(factory=Verdict)
    changes: dict[str, int] = attrs.field(factory=dict)
    rounds: int = 0

    def try_round(self, trials: int) -> None:
        """Try one, and keep what came of it."""
        by = self.budget.chance(-1 - self.rounds)
        its = choose(self.rounds, by)
        defects: list[str] = []
        verdict = Verdict()
        try:
            service = Service(its, self.crew.places, 2 * _SECONDS + 3 * PATIENCE)
            try:
                verdict = self._use(service, its, by, trials)
            finally:
                for kind, count in service.changes.items():
                    self.changes[kind] = self.changes.get(kind, 0) + count
                service.leave(defects)
        except AssertionError as problem:
            defects.append(str(problem)[-2000:])
        where = f"seed {self.budget.seed}, round {self.rounds} ({its.lines()})"
        verdict.defects = [f"{where}: {said}" for said in verdict.defects + defects]
        self.whole.add(verdict)
        self.rounds += 1

    def _use(self, service: Service, its: Round, by: random.Random, trials: int) -> Verdict:
        crew = self.crew
        until = time.monotonic() + max(_LEAST, min(_SECONDS, self.budget.left()))
        for control in crew.servers:
            control.send(("round", (its.mix, SERVERS in its.changes)))
        first = self.rounds * TRIALS
        for number, control in enumerate(crew.clients):
            numbers = range(first + number, first + trials, PROCESSES)
            control.send(Job(its.mix, numbers, service.entries(), until, its.together))
        waiting, seen = list(crew.clients), []
        due = time.monotonic() + by.random()
        while waiting:
            for control in list(waiting):
                if control.poll(0.05):
                    seen += control.recv()
                    waiting.remove(control)
            if time.monotonic() > due and service.can_change() and waiting:
                service.change(by)
                due = time.monotonic() + 2 * _PAUSE * by.random()
        at_servers: list[Seen] = []
        for control in crew.servers:
            control.send(("seen", None))
        for control in crew.servers:
            at_servers += control.recv()
        log = service.whole_log(len(seen), PATIENCE)
        return judge(self.budget.seed, its.mix, seen, at_servers, log)


def run(budget: Budget, trials: int = TRIALS) -> Report:
    """Try it, round after round, each of so many connections."""
    crew = Crew(budget.seed)
    rounds = _Rounds(budget, crew)
    try:
        while not budget.is_spent():
            rounds.try_round(trials)
    finally:
        crew.end()
    whole = rounds.whole
    figures = {
        "connections": f"{whole.connections:,}, of which {whole.orderly:,} had to be whole",
        "bytes looked at": f"{whole.bytes:,}",
        "rounds": f"{rounds.rounds}",
        "changes": ", ".join(f"{count} {kind}" for kind, count in rounds.changes.items()) or "none",
        "log": ", ".join(f"{count:,} {reason}" for reason, count in whole.reasons.most_common()),
        "seen without a byte": f"{whole.empty}, by servers whose clients had left",
        "missed": f"{whole.missed}, in the queue of a server that went",
    }
    return Report(figures, whole.defects)
