"""Mixed real traffic through one service that is reloaded every ten seconds and upgraded every minute.

A round takes a minute, and ends with all clients gone: then the service has to be what it was before the first one, and in the
end each line in both logs has to have a cause.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import attrs

from campaign.budget import Budget
from campaign.report import Report
from campaign.soak.lines import causes_of, strange
from campaign.soak.reloads import Reloads
from campaign.soak.service import Soaked
from campaign.soak.state import State, growth, look
from campaign.soak.traffic import Traffic
from tests.interop.children import eventually

_ROUND = 60.0
"""Seconds from the beginning of a round to that of the next one, if the machine is not too busy."""
_TRAFFIC = 40.0
"""Seconds of a round in which clients come."""
_SHORTEST = 3.0
"""The same, of the only round of a small budget."""
_QUIET = 60.0
"""Seconds that timers may take to run out when all clients have gone."""
_GROWTH = 2**22
"""Bytes by which the memory of all processes together may differ."""


@attrs.define
class _Run:
    soaked: Soaked
    report: Report
    made: Counter[str] = attrs.field(factory=Counter)
    before: State | None = None
    memory: list[int] = attrs.field(factory=list)
    most: Counter[str] = attrs.field(factory=Counter)

    def round(self, number: int, budget: Budget) -> None:
        """Have clients come and stay, with an upgrade in the middle, and look what is left of them."""
        folder = self.soaked.folder / "clients"
        folder.mkdir(exist_ok=True)
        seconds = _seconds(budget.left())
        next_round = time.monotonic() + min(_ROUND, budget.left())
        traffic = Traffic(self.soaked, folder, budget.chance(number), seconds / 30)
        time.sleep(seconds / 2)
        old = self.soaked.upgrade()
        time.sleep(seconds / 2)
        traffic.end()
        self.report.defects += [f"round {number}: {problem}" for problem in traffic.problems]
        self.made += traffic.made
        self.soaked.await_end(old)
        self.quiet(f"round {number}")
        time.sleep(max(0.0, next_round - time.monotonic()))

    def quiet(self, when: str) -> None:
        """Wait until the service is as it was before, and measure its memory."""
        eventually(lambda: not self.soaked.active(), "all connections and flows have ended", 180)
        deadline = time.monotonic() + _QUIET
        while True:
            with self.soaked.changing:
                state = look(self.soaked.mux.pid, self.soaked.folder)
            self.before = self.before or state
            differences = state.differences(self.before)
            if not differences or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.before = state.least(self.before)
        self.memory.append(state.memory)
        self.most["pipes"] = max(self.most["pipes"], state.pipes)
        if differences:
            self.report.defects.append(f"{when}: {', '.join(differences)}")

    def judge(self) -> None:
        """Read the logs, and say what has been measured."""
        mux, report, before = self.soaked.mux, self.report, self.before
        assert before is not None
        grown = growth(self.memory)
        if grown > _GROWTH:
            report.defects.append(f"memory has grown by {grown // 1024} KiB: {self.memory}")
        causes, unknown = causes_of(mux.child.output)
        report.defects += [f"no cause for this line of the log: {line}" for line in unknown]
        late = causes["an upgrade that takes too long"]
        for what, asked, logged in (
            ("a reload", self.soaked.reloads, causes["a reload"]),
            ("an upgrade", self.soaked.upgrades, causes["an upgrade"] + late),
            # The new process has been ended, and its workers notice.
            ("the end of a worker", 2 * late, causes["a process that was too late"]),
        ):
            if asked != logged:
                report.defects.append(f"{what} was wanted {asked} times, logged {logged}")
        lines, wrong = strange(mux.log.read_text().splitlines(), self.made)
        report.defects += wrong
        report.figures = {
            "rounds": str(len(self.memory) - 1),
            "reloads": str(self.soaked.reloads),
            "upgrades": str(causes["an upgrade"]),
            "connections": _shown(self.made),
            "memory, KiB": " ".join(str(one // 1024) for one in self.memory),
            "memory grown, KiB": str(grown // 1024),
            "at rest": f"{before}; pipes at most {self.most['pipes']}",
            "access log": _shown(lines),
            "log": _shown(causes),
        }
        if report.defects:
            report.figures["end of the log"] = mux.child.output[-20_000:]


def _seconds(left: float) -> float:
    """Tell how long clients come in a round, of the seconds that are left."""
    return min(_TRAFFIC, max(left, _SHORTEST))


def _shown(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counted.items()))


def run(budget: Budget) -> Report:
    """Soak one service for as long as the budget says, at least for one round."""
    with tempfile.TemporaryDirectory(prefix="soak-") as made, ExitStack() as ends:
        seconds = _seconds(budget.seconds)
        soaked = Soaked(Path(made), ends, seconds)
        one = _Run(soaked, Report())
        # A process that has taken another one's place has a little more than the first, and one that has reloaded rules a thread.
        soaked.await_end(soaked.upgrade())
        soaked.reload()
        one.quiet("before")
        with Reloads(soaked, seconds / 4) as reloads:
            number = 0
            while not number or not budget.is_spent():
                one.round(number, budget)
                number += 1
        one.report.defects += reloads.problems
        soaked.mux.stop()
        one.judge()
    return one.report
