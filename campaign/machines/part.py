"""Small machines: a share of a core, little memory, or too few of something, and whatever changes meanwhile."""

from __future__ import annotations

from campaign.budget import Budget
from campaign.machines import changes, costs, memory, shortages
from campaign.report import Report
from campaign.trial import Trial, try_all

TRIALS: tuple[Trial, ...] = (*changes.TRIALS, *costs.TRIALS, *memory.TRIALS, *shortages.TRIALS)


def run(budget: Budget) -> Report:
    return try_all(budget, TRIALS)
