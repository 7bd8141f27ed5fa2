"""The part of the campaign with bad servers and bad machines: each trouble in turn, in any order, until the time is up."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING
from unittest import TestResult

from tests.campaign.machines.machine import ShortageTrouble
from tests.campaign.machines.processes import ProcessTrouble
from tests.campaign.machines.servers import ServerTrouble
from tests.campaign.report import Report

if TYPE_CHECKING:
    import random

    from tests.campaign.budget import Budget
    from tests.campaign.machines.trouble import TroubleCase

CASES = (ServerTrouble, ShortageTrouble, ProcessTrouble)


def run(budget: Budget) -> Report:
    """Have each trouble as often as there is time for it, and each at least once."""
    report, times, slowest = Report(), Counter[str](), 0.0
    names = [(case, name) for case in CASES for name in dir(case) if name.startswith("test_")]
    for trial in itertools.count():
        chance = budget.chance(trial)
        case, name = names[trial] if trial < len(names) else chance.choice(names)
        trouble = f"{case.__name__}.{name}"
        result, seconds = attempt(case, name, chance)
        times[trouble] += 1
        slowest = max(slowest, seconds)
        for _, text in (*result.failures, *result.errors):
            last = text.strip().splitlines()[-1]
            report.defects.append(f"{trouble}, seed {budget.seed}, trial {trial}: {last}")
        for _, why in result.skipped:
            report.figures[f"{trouble} skipped"] = why
        if budget.is_spent() and trial >= len(names):
            break
    report.figures |= {trouble: f"{count} times" for trouble, count in sorted(times.items())}
    report.figures["longest until clients were served again"] = f"{slowest:.2f} s"
    return report


def attempt(case: type[TroubleCase], name: str, chance: random.Random) -> tuple[TestResult, float]:
    """Have one trouble, and give what came of it, and how long it took until clients were served again."""
    result = TestResult()

    class Once(case):  # type: ignore[misc, valid-type]
        pass

    Once.chance = chance
    Once.setUpClass()
    try:
        test = Once(name)
        test.run(result)
    finally:
        Once.tearDownClass()
        Once.doClassCleanups()
    return result, test.slowest
