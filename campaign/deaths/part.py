"""Processes are killed or halted in the middle of a change, at any message between them."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

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
_DECISIVE = 0.3
"""How many strikes are around the commit."""


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
    if chance.random() < _DECISIVE:
        moment = chance.choice([*MATRIX[change].values()])
    else:
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
