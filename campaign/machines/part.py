"""The part of the campaign with bad servers and bad machines: each trouble in turn, in any order, until the time is up."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from unittest import TestResult

from campaign.budget import Budget
from campaign.machines.clocks import ClockTrouble
from campaign.machines.machine import ShortageTrouble
from campaign.machines.processes import ProcessTrouble
from campaign.machines.servers import ServerTrouble
from campaign.machines.trouble import TroubleCase
from campaign.report import Report

CASES = (ServerTrouble, ShortageTrouble, ProcessTrouble, ClockTrouble)

_LONGEST = 600.0
"""Seconds that one trouble goes on at most, half of the campaign's time otherwise."""
_AGAIN = 10.0
_LOADS = (1, 2, 4, 8)


def run(budget: Budget) -> Report:
    """Have each trouble once, as small as in the short form, and then any of them, many times as large, while there is time."""
    report, times, slowest = Report(), Counter[str](), 0.0
    names = [(case, name) for case in CASES for name in dir(case) if name.startswith("test_")]
    for trial in itertools.count():
        chance = budget.chance(trial)
        if trial < len(names):
            case, name = names[trial]
            load, seconds = 1, min(_LONGEST, budget.seconds / 2)
        else:
            case, name = chance.choice(names)
            load, seconds = chance.choice(_LOADS), _AGAIN
        trouble = f"{case.__name__}.{name}"
        result, test = attempt(case, name, chance, load, seconds)
        times[trouble] += 1
        slowest = max(slowest, test.slowest)
        report.defects += [
            f"{trouble}, load {load}, seed {budget.seed}, trial {trial}: {text.strip().splitlines()[-1]}"
            for _, text in (*result.failures, *result.errors)
        ]
        for _, why in result.skipped:
            report.figures[f"{trouble} skipped"] = why
        if trial < len(names):
            report.figures |= test.figures
        if budget.is_spent() and trial >= len(names):
            break
    report.figures |= {trouble: f"{count} times" for trouble, count in sorted(times.items())}
    report.figures["longest until clients were served again"] = f"{slowest:.2f} s"
    return report


def attempt(
    case: type[TroubleCase],
    name: str,
    chance: random.Random,
    load: int = TroubleCase.load,
    seconds: float = TroubleCase.seconds,
) -> tuple[TestResult, TroubleCase]:
    """Have one trouble, and give what came of it, and the trouble with what it has measured."""
    result = TestResult()

    class Once(case):  # type: ignore[misc, valid-type]
        pass

    Once.chance, Once.load, Once.seconds = chance, load, seconds
    Once.setUpClass()
    try:
        test = Once(name)
        test.run(result)
    finally:
        Once.tearDownClass()
        Once.doClassCleanups()
    return result, test
