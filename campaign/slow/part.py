"""The part of the campaign with small machines: a share of a core, or little memory, and whatever changes meanwhile.

``python -m campaign.slow.part`` runs the trials whose name has all of some words; ``--list`` names them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from campaign.budget import Budget
from campaign.report import Report
from campaign.slow import changes, costs, memory
from campaign.slow.trial import Trial

TRIALS: tuple[Trial, ...] = (*changes.TRIALS, *costs.TRIALS, *memory.TRIALS)


def run(budget: Budget, trials: Sequence[Trial] = TRIALS) -> Report:
    """Try one after another while there is time, at least one; begin anew when all have been."""
    report = Report()
    done = 0
    while not done or not budget.is_spent():
        trial = trials[done % len(trials)]
        found = trial.run()
        report.figures |= {f"{trial.name}: {name}": what for name, what in found.figures.items()}
        report.defects += [f"seed {budget.seed}, {trial.name}: {one}" for one in found.defects]
        done += 1
    report.figures["trials"] = str(done)
    if left := [trial.name for trial in trials[done:]]:
        report.figures["not tried for lack of time"] = "; ".join(left)
    return report


def main() -> int:
    """Run some trials once each, and show what each found when it is over."""
    parser = argparse.ArgumentParser(prog="python -m campaign.slow.part")
    parser.add_argument("words", nargs="*", help="only trials whose name has all of these")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all is cleaned up
    broken = False
    for trial in TRIALS:
        if all(word in trial.name for word in options.words):
            sys.stdout.write(f"{trial.name}\n")
            sys.stdout.flush()
            if options.list:
                continue
            began = time.monotonic()
            found = trial.run()
            sys.stdout.writelines(f"{line}\n" for line in found.lines())
            sys.stdout.write(f"  in {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()
            broken |= bool(found.defects)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
