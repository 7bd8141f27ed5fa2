"""The peers of a service are hostile: each source that it asks, beside each way of `tests.support.hostile`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from subprocess import TimeoutExpired
from typing import TypeAlias

from campaign.budget import Budget
from campaign.peers.trial import SECONDS, Outcome
from campaign.report import Report
from tests.interop.children import run as run_program
from tests.support.hostile import SILENT
from tests.support.sources import ROWS

Pair: TypeAlias = tuple[str, str]

MOST_GROWTH, MOST_P99, MOST_UNKNOWN = 20.0, 100.0, 70.0  # MiB, ms, s
_SIDE_BY_SIDE, _ENDLESS_SIDE_BY_SIDE = 8, 2
_STARTING = 120.0  # seconds
_ENDLESS_SECONDS = 25.0  # which keep a core busy
_HEAD = (
    "| source | peer | supervisor, MiB | worker, MiB | first line, s | lines | attention, s | not up, s | p99 before, ms | p99, ms | not served | sent, MiB | good again, s |",
    f"|---|---|{'---|' * 11}",
)


def run(budget: Budget, seconds: float = SECONDS, most_p99: float = MOST_P99) -> Report:
    """Try pairs at random until the time is over; `most_p99` is for good clients, in ms."""
    report = Report(table=[*_HEAD])
    chance = budget.chance(0)
    left: list[Pair] = []
    while len(report.table) == len(_HEAD) or not budget.is_spent():
        every = [pair for pair in pairs() if budget.only in ", ".join(pair)]
        left = left or chance.sample(every, len(every))
        some, left = left[:_SIDE_BY_SIDE], left[_SIDE_BY_SIDE:]
        for outcome in attempt(some, seconds):
            report.table.append(row(outcome))
            report.defects += [
                f"seed {budget.seed}: {outcome.source}, {outcome.way}: {one}"
                for one in defects(outcome, seconds, most_p99)
            ]
    return report


def pairs() -> list[Pair]:
    return [(source, way) for source, found in ROWS.items() for way in found.ways]


def attempt(
    chosen: Sequence[Pair], seconds: float = SECONDS, recovery: float = 0.0
) -> Iterator[Outcome]:
    """Try pairs side by side, in processes of their own, those with endless peers after the others."""
    for endless in (False, True):
        them = [pair for pair in chosen if ("endless" in pair[1]) is endless]
        least = min(seconds, _ENDLESS_SECONDS) if endless else seconds
        with ThreadPoolExecutor(_ENDLESS_SIDE_BY_SIDE if endless else _SIDE_BY_SIDE) as pool:
            tried = [pool.submit(_try, pair, least, recovery) for pair in them]
            yield from (one.result() for one in as_completed(tried))


def _try(pair: Pair, seconds: float, recovery: float) -> Outcome:
    module = (sys.executable, "-m", "campaign.peers.trial")
    limit = seconds + recovery + _STARTING
    try:
        done = run_program(*module, *pair, f"{seconds}", f"{recovery}", timeout=limit)
        return Outcome(**json.loads(done.stdout))
    except (TimeoutExpired, ValueError) as problem:
        return Outcome(*pair, defects=[f"nothing is measured: {problem!r}"])


def defects(outcome: Outcome, seconds: float = SECONDS, most_p99: float = MOST_P99) -> list[str]:
    """Return which promises were broken."""
    found = [*outcome.defects]
    if max(outcome.growth) > MOST_GROWTH:
        found.append(f"memory grew by {max(outcome.growth):g} MiB")
    if outcome.p99[1] > most_p99 or outcome.failed:
        found.append(f"good clients: p99 {outcome.p99[1]:g} ms, {outcome.failed} not served")
    is_late = outcome.attention is None or outcome.attention > MOST_UNKNOWN
    if outcome.way == SILENT and is_late and seconds > MOST_UNKNOWN:
        found.append(f"attention: {outcome.attention} s")
    return found


def row(outcome: Outcome) -> str:
    cells = [
        *(outcome.source, outcome.way, *outcome.growth, outcome.line, outcome.lines),
        *(outcome.attention, outcome.down, *outcome.p99, outcome.failed, outcome.sent),
        outcome.recovered,
    ]
    return f"| {' | '.join('-' if cell is None else str(cell) for cell in cells)} |"
