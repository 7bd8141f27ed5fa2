"""Trials: each has its own service, and reports what it measures and what breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from campaign.budget import Budget
from campaign.report import Report
from tests.support.undone import Undone
from txmux.errors import MuxError


class Failure(Exception):  # noqa: N818 - not an error of the program
    """What makes the rest of a trial pointless."""


@attrs.frozen
class Trial:
    """A trial, which cleans up at its end by what it is given."""

    name: str
    do: Callable[[Report, Undone], None]

    def run(self) -> Report:
        report = Report()
        try:
            with Undone() as undone:
                self.do(report, undone)
        except (Failure, AssertionError, OSError, MuxError) as problem:
            report.defects.append(f"{type(problem).__name__}: {problem}"[-4000:])
        return report


def try_all(budget: Budget, trials: Sequence[Trial]) -> Report:
    """Try one after another while there is time, at least one, in an order of the seed; begin anew when all have been."""
    report = Report()
    order: list[Trial] = []
    done = 0
    chosen = [trial for trial in trials if budget.only in trial.name]
    while not done or not budget.is_spent():
        order = order or budget.chance(done).sample(chosen, len(chosen))
        trial = order.pop()
        found = trial.run()
        report.figures |= {f"{trial.name}: {name}": what for name, what in found.figures.items()}
        report.defects += [f"seed {budget.seed}, {trial.name}: {one}" for one in found.defects]
        done += 1
    report.figures["trials"] = f"{done} of {len(chosen)}"
    return report
