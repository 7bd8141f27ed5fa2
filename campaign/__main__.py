"""``script/campaign [PART …] [--minutes N] [--seed N]``: tries the parts, all of them by default, one after another."""

from __future__ import annotations

import argparse
import secrets
import shlex
import signal
import sys
from importlib import import_module
from pathlib import Path

from campaign.budget import Budget
from campaign.logs import watched
from campaign.report import Report


def parts() -> list[str]:
    return sorted(file.parent.name for file in Path(__file__).parent.glob("*/part.py"))


def run(part: str, budget: Budget) -> Report:
    """Try one part; no service may write of anything critical meanwhile, nor a traceback."""
    with watched() as lines:
        report = import_module(f"campaign.{part}.part").run(budget)
    assert isinstance(report, Report)
    report.defects += [f"seed {budget.seed}: {line}" for line in lines]
    return report


def main() -> int:
    """Try what the arguments name, and return the exit status: 0 if nothing broke, else 1."""
    parser = argparse.ArgumentParser(
        prog="script/campaign", description="Try to break what txmux promises."
    )
    parser.add_argument(
        "part", nargs="*", default=parts(), help=f"of {', '.join(parts())}; all by default"
    )
    parser.add_argument("--minutes", type=float, default=10, help="for each part (default: 10)")
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(2**32),
        help="to repeat a run (default: by chance)",
    )
    parser.add_argument(
        "--only",
        default="",
        help="of a part's targets, trials or pairs, those with this in their names",
    )
    options = parser.parse_args()
    unknown = set(options.part) - set(parts())
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts())}")
    # whoever ends it is told what was found until then, if the part knows how
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broken = False
    for part in options.part:
        print(f"{part}, {options.minutes:g} minutes, seed {options.seed}", flush=True)
        report = run(part, Budget(options.minutes * 60, options.seed, options.only))
        print(*report.lines(), sep="\n", flush=True)
        if report.defects:
            only = f" --only {shlex.quote(options.only)}" * bool(options.only)
            again = f"{part} --minutes {options.minutes:g} --seed {options.seed}{only}"
            print(f"  again: sudo script/campaign {again}", flush=True)
        broken |= bool(report.defects)
        if report.is_interrupted:
            break
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
