"""The part of the campaign in which converted configurations run beside their originals: no client may be closed that the original serves.

``python -m campaign.beside.part`` runs the trials whose name has all of some words; ``--list`` names them.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
import time
import unittest
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from campaign.beside.servers import Answer, protocols, resetting, slow
from campaign.beside.trials import PICKY, TRIALS, Trial
from campaign.budget import Budget
from campaign.report import Report
from tests.interop.children import Child, eventually, listens
from tests.interop.converted.sidebyside import HaproxyTestCase, NginxTestCase, SideBySideTestCase
from tests.interop.originals import Named

SECONDS = 10.0
_PAUSE = 0.2
_LAST = 4
_BY_CHANCE = 2
"""Clients that may have met a server in its last moments."""

_CLIENT = "redis"
"""What clients say first; those of servers that greet say it, too."""


@attrs.define
class Outcome:
    """What became of clients at one port, of the original and of txmux."""

    asked: int = 0
    refused: list[int] = attrs.field(factory=lambda: [0, 0])
    last: tuple[deque[bool], deque[bool]] = attrs.field(
        factory=lambda: (deque(maxlen=_LAST), deque(maxlen=_LAST))
    )
    """Whether the last ones were served."""

    def note(self, *served: bool) -> None:
        self.asked += 1
        for which, is_served in enumerate(served):
            self.refused[which] += not is_served
            self.last[which].append(is_served)

    def defect(self, *, is_told: bool) -> str:
        """Return what is wrong; a LOOK may tell of what differs for good."""
        theirs, ours = self.last
        if all(theirs) and not any(ours) and not is_told:
            return "the original serves clients in the end, and txmux does not"
        if any(ours) and self.refused[1] > self.refused[0] + _BY_CHANCE:
            return f"txmux refused {self.refused[1]} of {self.asked} clients, and the original {self.refused[0]}"
        return ""


class _Beside(SideBySideTestCase):
    """One trial; `outcomes` has what was found, by what is behind the port."""

    trial: Trial
    seconds = SECONDS

    def runTest(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        speaking = protocols(self.own_folder)
        for name in {word.partition(">")[0] for word in self.trial.text.split("<")[1:]}:
            answer = _answer_of(name.removesuffix(".port"), speaking)
            if answer is not None:
                server = name.removesuffix(".port")
                self.servers[server] = Named(self, server, answer=answer)
        self.start(self.trial.text)
        ends = time.monotonic() + self.seconds
        while time.monotonic() < ends:
            self._ask()
            time.sleep(_PAUSE)

    def _ask(self) -> None:
        clients = [{_CLIENT: ""} if port in self.trial.ports else {} for port in self._ports()]
        answers = self.answers(clients)
        for number, port in enumerate(self._ports()):
            if port in self.trial.ports:
                outcome = self.outcomes.setdefault(self.trial.ports[port], Outcome())
                outcome.note(*(bool(answers[which][number][_CLIENT]) for which in (0, 1)))

    def _ports(self) -> list[str]:
        return [f"port{number or ''}" for number in range(len(self.trial.ports))]


def _answer_of(name: str, speaking: Mapping[str, tuple[Answer, Answer]]) -> Answer | None:
    for protocol, (healthy, picky) in speaking.items():
        kinds = {"healthy": healthy, "picky": picky, "slow": slow(healthy)}
        for kind, answer in kinds.items():
            if name == f"{protocol}{kind}":
                return answer
    return slow(_talk) if name == "talkslow" else resetting if name == "tcppicky" else None


def _talk(connection: socket.socket) -> None:
    connection.sendall(b"talk\n")
    connection.recv(4096)


class _Haproxy(_Beside, HaproxyTestCase):
    pass


class _Nginx(_Beside, NginxTestCase):
    pass


class _Traefik(_Beside):
    program = "traefik"

    def start_original(self, file: Path) -> None:
        file = file.rename(file.with_suffix(".yml"))
        self.own(Child("traefik", f"--configFile={file}"))
        eventually(lambda: all(map(listens, self.ports[0].values())), "traefik listens")


_CASES: dict[str, type[_Beside]] = {"haproxy": _Haproxy, "nginx": _Nginx, "traefik": _Traefik}


def attempt(trial: Trial, report: Report, seconds: float = SECONDS) -> None:
    """Run one trial, and report how many clients were refused by each."""
    case = _CASES[trial.program]("runTest")
    case.trial, case.seconds = trial, seconds
    result = unittest.TestResult()
    unittest.TestSuite([case]).run(result)
    name = f"{trial.program}: {trial.name}"
    for _, text in (*result.errors, *result.failures):
        report.defects.append(f"{name}: {text.strip().splitlines()[-1]}")
    for what, outcome in getattr(case, "outcomes", {}).items():
        found = outcome.defect(is_told=case.found.has_looks and what == PICKY)
        report.defects += [f"{name}, {what}: {found}"] if found else []
        refused = ", ".join(map(str, outcome.refused))
        report.table.append(f"| {name} | {what} | {outcome.asked} | {refused} |")


def run(budget: Budget, trials: Sequence[Trial] = TRIALS, seconds: float = SECONDS) -> Report:
    """Run trials in a random order until the time is over, at least one; those of programs that are missing are named."""
    report = Report(
        table=[
            "| configuration | servers | clients | refused by the original, by txmux |",
            "|---|---|---|---|",
        ]
    )
    here = [trial for trial in trials if shutil.which(trial.program)]
    missing = {trial.program for trial in trials} - {trial.program for trial in here}
    if missing:
        report.figures["not installed, and not tried"] = ", ".join(sorted(missing))
    left = budget.chance(0).sample(here, len(here))
    done = 0
    while left and (not done or not budget.is_spent()):
        attempt(left.pop(), report, seconds)
        done += 1
    report.figures["trials"] = f"{done} of {len(here)}"
    report.defects[:] = [f"seed {budget.seed}, {one}" for one in report.defects]
    return report


def _chosen(words: Iterable[str]) -> list[Trial]:
    return [t for t in TRIALS if all(word in f"{t.program}: {t.name}" for word in words)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign.beside.part")
    parser.add_argument("words", nargs="*", help="only trials whose name has all of these")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each trial")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    trials = _chosen(options.words)
    if options.list:
        sys.stdout.writelines(f"{trial.program}: {trial.name}\n" for trial in trials)
        return 0
    report = run(Budget(1e9, 0), trials, options.seconds)
    sys.stdout.writelines(f"{line}\n" for line in report.lines())
    return int(bool(report.defects))


if __name__ == "__main__":
    sys.exit(main())
