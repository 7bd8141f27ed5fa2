"""Byte truth: every byte of very many connections is looked at, and every line of the access log compared."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import attrs

from campaign.budget import Budget
from campaign.bytes.changing import all_at_once
from campaign.bytes.clients import Job
from campaign.bytes.crew import Crew
from campaign.bytes.datagrams import Counts, Datagrams
from campaign.bytes.judging import Verdict, judge
from campaign.bytes.plans import PATIENCE, plan
from campaign.bytes.rounds import (
    HANG,
    SERVERS,
    TROUBLE,
    DatagramService,
    Round,
    RoundService,
    choose,
)
from campaign.report import Report

T = TypeVar("T", bound=RoundService)

TRIALS = 10_000
"""Connections of one round, at most."""
_SECONDS = 60.0
"""The same, for seconds."""
_LEAST = 5.0  # seconds that clients come in a round, however late it is
_EVERY = 5
"""One round of so many is of datagrams."""
_MOST_SAID = 2**25
"""Characters that a service may say in a round."""
_MOST_DEFECTS = 1000
"""Defects that are kept of all rounds."""
_FAILURES = (AssertionError, EOFError, LookupError, OSError, ValueError, subprocess.SubprocessError)
"""What ends a round, and not the campaign."""


@attrs.define
class Rounds:
    """Goes from round to round."""

    budget: Budget
    choose: Callable[[int, random.Random], Round] = choose
    trials: int = TRIALS
    seconds: float = _SECONDS  # of a round, at most
    every: int = _EVERY
    crew: Crew = attrs.field(init=False)
    whole: Verdict = attrs.field(factory=Verdict)
    datagrams: Counts = attrs.field(factory=Counts)
    changes: dict[str, int] = attrs.field(factory=dict)
    defects: list[str] = attrs.field(factory=list)
    rounds: int = 0
    is_interrupted: bool = False

    def __attrs_post_init__(self) -> None:
        self.crew = Crew(self.budget.seed)

    def go(self, step: Callable[[], None]) -> Report:
        """Take one step after another until the time is over; what was found before an interruption is told all the same."""
        try:
            step()
            while not self.budget.is_spent():
                step()
        except KeyboardInterrupt:
            self.is_interrupted = True
        finally:
            self.crew.end()
        return self.report()

    def try_next(self) -> None:
        if self.rounds % self.every == self.every - 1:
            self.try_datagrams()
        else:
            self.try_streams()

    def try_streams(self) -> None:
        its, by, defects = self._choose()
        start = functools.partial(RoundService, its, self.crew.places)
        self.attempt(start, lambda service: self._use(service, its, by, defects), defects)
        self._note(its, defects)

    def try_datagrams(self) -> None:
        """Try a round of datagrams, and keep what came of it. A killed worker logs none of its flows, so there is no trouble."""
        its, by, defects = self._choose()
        its = attrs.evolve(
            its, changes=tuple(one for one in its.changes if one not in {TROUBLE, HANG})
        )
        talk = Datagrams(self.budget.seed, self.rounds * TRIALS)
        start = functools.partial(DatagramService, its, self.crew.places, talk.port)
        self.attempt(start, lambda service: self._use_for_datagrams(service, talk, by), defects)
        self.datagrams.add(talk.counts)
        self._note(its, talk.counts.defects + defects)

    def _choose(self) -> tuple[Round, random.Random, list[str]]:
        by = self.budget.chance(-1 - self.rounds)
        return self.choose(self.rounds, by), by, []

    def _note(self, its: Round, defects: list[str]) -> None:
        where = f"seed {self.budget.seed}, round {self.rounds} ({its.lines()})"
        room = _MOST_DEFECTS - len(self.defects)
        self.defects += [f"{where}: {said}" for said in defects[:room]]
        self.rounds += 1
        so_far = f"{self.whole.connections:,} connections, {self.datagrams.sent:,} datagrams"
        sys.stdout.write(f"  {where}: {so_far} so far, {len(defects)} defects\n")
        sys.stdout.flush()  # for whoever ends the campaign by force

    def attempt(self, start: Callable[[], T], use: Callable[[T], None], defects: list[str]) -> None:
        """Run a service for a round; what goes wrong with it is a defect, and not the end of all."""
        try:
            service = start()
            try:
                use(service)
                service.stop()
            finally:
                for kind, count in service.changes().items():
                    self.changes[kind] = self.changes.get(kind, 0) + count
                service.remove()
        except _FAILURES as problem:
            defects.append(f"{type(problem).__name__}: {str(problem)[-2000:]}")
            # Those of this one may still be at it.
            self.crew.end()
            self.crew = Crew(self.budget.seed)

    def _use_for_datagrams(
        self, service: DatagramService, talk: Datagrams, by: random.Random
    ) -> None:
        until = time.monotonic() + max(1.0, min(self.seconds / 4, self.budget.left()))
        threads = service.changing(by)
        with all_at_once(threads) as look:

            def is_changing() -> bool:
                if time.monotonic() > until:
                    for thread in threads:
                        thread.end()
                return any(thread.is_alive() for thread in threads)

            talk.run(service.ports["datagrams"], until, is_changing)
            look()
        service.recover()
        asked = sum(bool(flow.asked) for flow in talk.flows.values())
        talk.compare(service.whole_log(asked, PATIENCE))

    def _use(
        self, service: RoundService, its: Round, by: random.Random, defects: list[str]
    ) -> None:
        job = Job(
            its.mix,
            range(self.rounds * TRIALS, self.rounds * TRIALS + self.trials),
            service.entries(),
            time.monotonic() + max(_LEAST, min(self.seconds, self.budget.left())),
            its.together,
        )
        with all_at_once(service.changing(by)) as look:

            def tick() -> None:
                look()
                if len(service.child.output) > _MOST_SAID:
                    raise AssertionError(f"it says too much: {service.child.output[-1000:]}")

            seen, at_servers = self.crew.run(job, tick, changing=SERVERS in its.changes)
        try:
            service.recover()
        except AssertionError as problem:
            defects.append(str(problem)[-2000:])
        losses, seed = service.troubles.losses, self.budget.seed
        cut = sum(losses.may_miss_line(plan(seed, one.trial, its.mix), one, None) for one in seen)
        lines = len(seen) - cut + sum(one.again == "refused" for one in seen)
        log = service.whole_log(lines, PATIENCE)
        if losses.times:
            service.stop()
            log = service.lines()
        verdict = judge(seed, its.mix, seen, at_servers, log, losses)
        self.whole.add(verdict)
        defects += verdict.defects

    def report(self) -> Report:
        whole, flows = self.whole, self.datagrams
        figures = {
            "connections": f"{whole.connections:,}, of which {whole.orderly:,} had to be whole",
            "bytes looked at": f"{whole.bytes:,}",
            "rounds": f"{self.rounds}{', and one that was interrupted' * self.is_interrupted}",
            "changes": ", ".join(f"{count} {kind}" for kind, count in self.changes.items())
            or "none",
            "log": ", ".join(
                f"{count:,} {reason}" for reason, count in whole.reasons.most_common()
            ),
            "seen without a byte": f"{whole.empty}, by servers whose clients had left",
            "datagrams": f"{flows.sent:,} of {flows.flows:,} clients, {flows.asked:,} came; {flows.answered:,} answers came",
            "moved": f"{flows.moved} of these clients have had more than one port at the server",
            "came again": ", ".join(f"{count} {what}" for what, count in whole.again.items())
            or "nobody",
            "cut by killed workers": f"{whole.cut}, of which {whole.looked_whole} without TLS looked complete to an end",
            "missed": f"{whole.missed}, in the queue of a server that went",
        }
        return Report(figures, self.defects, self.is_interrupted)


def run(budget: Budget, trials: int = TRIALS) -> Report:
    rounds = Rounds(budget, trials=trials)
    return rounds.go(rounds.try_next)


def run_datagrams(budget: Budget) -> Report:
    rounds = Rounds(budget)
    return rounds.go(rounds.try_datagrams)
