"""The part of the campaign in which processes die or halt in the middle of a change.

``python -m campaign.deaths.part`` makes the table of `moments.MATRIX` instead; with words, of the lines that contain them all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from campaign.deaths.moments import (
    HALTED,
    KILLED,
    MATRIX,
    UPGRADE,
    VICTIMS,
    Strike,
)
from campaign.deaths.trial import Outcome, Trial

STREAMS = 300


def matrix() -> Iterator[Strike]:
    """Give what the table has, line by line."""
    for change, moments in MATRIX.items():
        for victim in VICTIMS:
            if change == UPGRADE or not victim.startswith("new") or victim == "new worker":
                for how in (KILLED, HALTED):
                    for moment in moments.values():
                        yield Strike(change, victim, how, moment)


def attempt(strike: Strike, streams: int) -> Outcome:
    """Try one."""
    trial = Trial(strike, streams)
    try:
        return trial.run()
    except (AssertionError, OSError) as problem:
        trial.outcome.defects.append(f"{type(problem).__name__}: {problem}"[-2000:])
        return trial.outcome


def main() -> int:
    """Make the table, or a part of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    broken = 0
    for strike in matrix():
        if all(word in str(strike) for word in options.words):
            outcome = attempt(strike, options.streams)
            broken += bool(outcome.defects)
            sys.stdout.write(f"{outcome}\n")
            sys.stdout.writelines(f"    DEFECT {defect}\n" for defect in outcome.defects)
            if options.log:
                sys.stdout.write(outcome.log)
            sys.stdout.flush()
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
