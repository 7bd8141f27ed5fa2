"""The part of the campaign in which processes are killed or halted in the middle of a change, at any message between them.

``python -m campaign.deaths.part`` makes the table of `moments.MATRIX` instead; with words, of the lines that contain them all.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from campaign.budget import Budget
from campaign.deaths.moments import (
    ANY,
    CHANGES,
    HALTED,
    KILLED,
    MATRIX,
    RESUMED,
    VICTIMS,
    Moment,
    Strike,
    can_befall,
    moments,
)
from campaign.deaths.trial import HANGS, Outcome, Trial
from campaign.report import Report

STREAMS = 300


def run(budget: Budget, streams: int = STREAMS, hangs: float = HANGS) -> Report:
    """Strike at any moments, until the time is over."""
    report, counts = Report(), Counter[str]()
    seen: dict[str, Counter[Moment]] = {}
    for trial in itertools.count():
        chance = budget.chance(trial)
        change = chance.choice(CHANGES)
        if change not in seen:
            seen[change] = look(change)
        strike = _choose(chance, change, seen[change])
        outcome = attempt(strike, streams, hangs)
        counts["changes"] += 1
        if outcome.has_come:
            counts[f"{strike.victim} {strike.how}"] += 1
            counts["streams beside the dead"] += streams - outcome.its
            counts["of these lost, or hanging"] += outcome.lost + outcome.hung
        report.defects += [
            f"seed {budget.seed}, trial {trial}, {outcome}: {defect}" for defect in outcome.defects
        ]
        if budget.is_spent():
            break
    report.figures = {name: f"{count:,}" for name, count in counts.items()}
    return report


def look(change: str) -> Counter[Moment]:
    """See at which moments of the table a process can be struck in a change, and how often each comes."""
    outcome = Trial(Strike(change, "", "", ANY), 40).run()
    lines = re.findall(r"MOMENT,(\w+),([\w ]+),([\w ]+)$", outcome.log, re.MULTILINE)
    return Counter(Moment(*line) for line in lines if line[:2] in moments())


def _choose(chance: random.Random, change: str, seen: Counter[Moment]) -> Strike:
    victim = chance.choice([one for one in VICTIMS if can_befall(change, one)])
    moment = chance.choice([*seen])
    moment = attrs.evolve(moment, count=chance.randint(1, seen[moment]))
    return Strike(change, victim, chance.choice((KILLED, KILLED, HALTED, RESUMED)), moment)


def attempt(strike: Strike, streams: int, hangs: float = HANGS) -> Outcome:
    """Try one; a stream may carry nothing for so many seconds."""
    trial = Trial(strike, streams, hangs)
    try:
        return trial.run()
    except (AssertionError, OSError) as problem:
        trial.outcome.defects.append(f"{type(problem).__name__}: {problem}"[-2000:])
        return trial.outcome


def matrix() -> Iterator[Strike]:
    """Give what the table has, line by line."""
    for change, named in MATRIX.items():
        for victim in VICTIMS:
            if can_befall(change, victim):
                for how, moment in itertools.product((KILLED, HALTED), named.values()):
                    yield Strike(change, victim, how, moment)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Write the table: how many streams of other processes were lost or hang."""
    for change, named in MATRIX.items():
        columns = [*itertools.product((KILLED, HALTED), named.items())]
        heads = [f"{how} {when}" for how, (when, _) in columns]
        yield f"| {change} | {' | '.join(heads)} |"
        yield f"|---|{'---|' * len(heads)}"
        for victim in VICTIMS:
            cells = []
            for how, (_, moment) in columns:
                found = [
                    one for one in outcomes if one.strike == Strike(change, victim, how, moment)
                ]
                cells += [str(one.lost + one.hung) if one.has_come else "" for one in found]
            if cells:
                yield f"| {victim} | {' | '.join(cells)} |"
        yield ""


def main() -> int:
    """Make the table, or a part of it."""
    parser = argparse.ArgumentParser(prog="python -m campaign.deaths.part")
    parser.add_argument("words", nargs="*", help="only strikes whose description has all of these")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--log", action="store_true", help="show what the services wrote")
    options = parser.parse_args()
    outcomes = []
    for strike in matrix():
        if all(word in str(strike) for word in options.words):
            outcome = attempt(strike, options.streams)
            outcomes.append(outcome)
            sys.stdout.write(f"{outcome}\n")
            sys.stdout.writelines(f"    DEFECT {defect}\n" for defect in outcome.defects)
            sys.stdout.write(outcome.log * options.log)
            sys.stdout.flush()
    sys.stdout.writelines(f"{line}\n" for line in table(outcomes))
    return int(any(outcome.defects for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
