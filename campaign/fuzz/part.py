"""Gives each target its share of the time, one after another, each in a process of its own."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

from campaign.budget import Budget
from campaign.fuzz import corpus, costs, target
from campaign.fuzz.asking import of_streams
from campaign.report import Report

_LONGEST_INPUT = 10  # seconds that one input may take, with all that counts coverage
_NEVER = 10**6
_MOST_MEMORY = 1500  # MiB
_PATIENCE = 600  # seconds for a process to begin and to end
_COVERED = re.compile(r"^#\d+\s.*\bcov: (\d+)", re.MULTILINE)
_EXECUTED = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)
_LARGEST_SHOWN = 3000
_REST = 0.9  # of the time, for the targets
_TRIES = 40
_MOST_AT_ONCE, _MOST_BY_BYTES = 5.0, 75.0
"""Milliseconds of CPU. Byte by byte the aim is 50; a machine that does much else takes longer for the same."""


@attrs.frozen
class Outcome:
    executed: int
    covered: int
    broken: str = ""


def run(budget: Budget) -> Report:
    report = Report()
    if not budget.only:
        _look_at_costs(budget, report)
    left = [name for name in target.names() if budget.only in name]
    while left and not budget.is_spent():
        seconds = max(1, round(budget.left() / len(left)))
        name = left.pop(0)
        found = attempt(name, seconds, budget.seed)
        report.figures[name] = (
            f"{found.executed:,} inputs in {seconds:,} s, {found.covered:,} edges"
        )
        if found.broken:
            report.defects.append(f"{name}, seed {budget.seed}: {found.broken}")
    return report


def _look_at_costs(budget: Budget, report: Report) -> None:
    """Look for dearer inputs of each matcher, for a tenth of the time, and measure the dearest of all."""
    until = budget.left() * _REST
    found = costs.kept()
    for trial, line in enumerate(itertools.cycle(of_streams())):
        if budget.left() <= until and found.keys() >= of_streams().keys():
            break
        known = found.get(line)
        other = costs.dearest(line, budget.chance(trial), _TRIES, known)
        # Steps are counted in few bytes, in which what has a limit of its own seems to go on.
        if (
            known is None
            or costs.measured(line, other).by_bytes > costs.measured(line, known).by_bytes
        ):
            found[line] = other
    costs.keep(found)
    measured = {line: costs.measured(line, dear) for line, dear in found.items()}
    for name, most, cost in (
        ("at once", _MOST_AT_ONCE, lambda one: one.at_once),
        ("byte by byte", _MOST_BY_BYTES, lambda one: one.by_bytes),
    ):
        line = max(measured, key=lambda line: cost(measured[line]))
        highest = cost(measured[line])
        report.figures[f"dearest 32 KiB {name}"] = f"{highest:.1f} ms of CPU: {line}"
        if highest > most:
            report.defects.append(
                f"{line} takes {highest:.1f} ms {name}, more than {most}: {found[line]}"
            )
    report.defects += filter(None, (_growth(line, dear) for line, dear in found.items()))


def _growth(line: str, dear: costs.Dear) -> str:
    try:
        costs.check_growth(line, dear)
    except AssertionError as error:
        return f"cost grows faster than the bytes: {error}"
    return ""


def attempt(name: str, seconds: int, seed: int) -> Outcome:
    """Try one target, and keep the inputs that cover something."""
    with tempfile.TemporaryDirectory(prefix="txmux-fuzz-") as folder:
        place = Path(folder)
        grown, merged = place / "grown", place / "merged"
        for one in (grown, merged):
            one.mkdir()
        for data in _known(name):
            (grown / hashlib.sha256(data).hexdigest()).write_bytes(data)
        said = _child(name, place, f"-max_total_time={seconds}", f"-seed={seed or 1}", str(grown))
        broken = _broken(place, said)
        if not broken:
            _child(name, place, "-merge=1", str(merged), str(grown))
            found = [file.read_bytes() for file in merged.iterdir()]
            if found:
                corpus.keep(name, found)
    executed, covered = _EXECUTED.findall(said), _COVERED.findall(said)
    return Outcome(int((executed or [0])[-1]), int((covered or [0])[-1]), broken)


def _known(name: str) -> list[bytes]:
    made = target.load(name)
    return [one[: made.longest] for one in (*made.seeds(), *corpus.kept(name))]


def _child(name: str, folder: Path, *options: str) -> str:
    limits = [
        f"-timeout={_LONGEST_INPUT}",
        f"-report_slow_units={_NEVER}",  # it would keep an input as if it had broken something
        f"-rss_limit_mb={_MOST_MEMORY}",
        f"-artifact_prefix={folder}/broken-",
        "-print_final_stats=1",
    ]
    seconds = next((int(one.partition("=")[2]) for one in options if "_time=" in one), 600)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "campaign.fuzz.child", name, str(folder), *limits, *options],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=seconds + _PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired as late:
        return f"{(late.stdout or b'').decode(errors='replace')}\nERROR: it does not end"
    said = done.stdout.decode(errors="replace")
    return f"{said}\nERROR: exit status {done.returncode}" if done.returncode else said


def _broken(folder: Path, said: str) -> str:
    """Tell what broke the target; empty if nothing did."""
    for file in folder.glob("broken-*"):
        data = base64.b64encode(file.read_bytes()[:_LARGEST_SHOWN]).decode()
        why = said.partition("Uncaught Python exception")[2] or said.partition("ERROR: ")[2]
        return f"{data} {why.partition('INFO: ')[0].strip()[-_LARGEST_SHOWN:]}"
    return said[-_LARGEST_SHOWN:] if "ERROR: " in said else ""
