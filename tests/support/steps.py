"""Runs at once what a service does in steps."""

from collections.abc import Generator
from typing import TypeVar

from txmux.rules.model import Rules
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.snapshot import Counts, counts_in_steps

T = TypeVar("T")


def finished(steps: Generator[None, None, T]) -> T:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


def counts_of(counters: Counters, rules: Rules) -> Counts:
    backends = {backend.name: backend for backend in rules.every_backend()}
    return finished(counts_in_steps(counters, rules, backends))
