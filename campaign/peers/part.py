"""The part of the campaign in which the peers of a service are hostile: each source that it asks, beside each way of `tests.support.hostile`.

``python -m campaign.peers.part`` tries all pairs and writes the table; with words, the pairs whose names have them all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeAlias

from campaign.budget import Budget
from campaign.peers.rows import ROWS
from campaign.peers.trial import SECONDS, Outcome
from campaign.report import Report
from tests.support.hostile import SILENT

Pair: TypeAlias = tuple[str, str]

MOST_GROWTH, MOST_P99, MOST_UNKNOWN = 20.0, 100.0, 70.0  # MiB, ms, s
_SIDE_BY_SIDE, _ENDLESS_SIDE_BY_SIDE = 8, 2
_ENDLESS_SECONDS = 25.0  # which keep a core busy
_STARTING = 120.0  # seconds
_HEAD = (
    "| source | peer | supervisor, MiB | worker, MiB | first line, s | lines | attention, s | not up, s | p99 before, ms | p99, ms | not served | sent, MiB | good again, s |",
    f"|---|---|{'---|' * 11}",
)


def run(budget: Budget, seconds: float = SECONDS, most_p99: float = MOST_P99) -> Report:
    """Try pairs at random until the time is over; `most_p99` is for good clients, in ms."""
    report = Report(table=[*_HEAD])
    chance: random.Random = budget.chance(0)
    left: list[Pair] = []
    while True:
        left = left or chance.sample(pairs(), len(pairs()))
        some, left = left[:_SIDE_BY_SIDE], left[_SIDE_BY_SIDE:]
        for outcome in attempt(some, seconds):
            report.table.append(row(outcome))
            report.defects += [
                f"seed {budget.seed}: {outcome.source}, {outcome.way}: {one}"
                for one in defects(outcome, seconds, most_p99)
            ]
        if budget.is_spent():
            return report


def pairs() -> list[Pair]:
    return [(source, way) for source, found in ROWS.items() for way in found.ways]


def attempt(
    chosen: Iterable[Pair],
    seconds: float = SECONDS,
    recovery: float = 0.0,
    program: str = "",
) -> Iterator[Outcome]:
    """Try pairs side by side, those with endless peers after the others."""
    for endless, them in itertools.groupby(sorted(chosen, key=_is_endless), _is_endless):
        least = min(seconds, _ENDLESS_SECONDS) if endless else seconds
        with ThreadPoolExecutor(_ENDLESS_SIDE_BY_SIDE if endless else _SIDE_BY_SIDE) as pool:
            tried = [pool.submit(_try, pair, least, recovery, program) for pair in them]
            yield from (one.result() for one in as_completed(tried))


def _is_endless(pair: Pair) -> bool:
    return "endless" in pair[1]


def _try(pair: Pair, seconds: float, recovery: float, program: str) -> Outcome:
    command = [sys.executable, "-m", "campaign.peers.trial", *pair, f"--seconds={seconds}"]
    command += [f"--recovery={recovery}", *([f"--program={program}"] if program else [])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + recovery + _STARTING,
            check=False,
        )
        return Outcome(**json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError) as problem:
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


def _write(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign.peers.part")
    parser.add_argument("words", nargs="*", help="only pairs whose names have all of these")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--recovery", type=float, default=0.0)
    parser.add_argument("--program", default="", help="another txmux")
    options = parser.parse_args()
    chosen = [pair for pair in pairs() if all(word in " ".join(pair) for word in options.words)]
    _write(*_HEAD)
    broken = False
    for outcome in attempt(chosen, options.seconds, options.recovery, options.program):
        _write(row(outcome))
        found = defects(outcome, options.seconds)
        broken |= bool(found)
        _write(*(f"    {one}" for one in outcome.texts), *(f"    DEFECT {one}" for one in found))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
