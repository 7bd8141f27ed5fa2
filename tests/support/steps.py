"""Runs at once what a service does in steps."""

from collections.abc import Generator
from typing import TypeVar

import attrs

from txmux.control.gauges import ServiceCounts
from txmux.rules.model import Rules
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.snapshot import counts_in_steps

T = TypeVar("T")


def finished(steps: Generator[None, None, T]) -> T:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


def counts_of(counters: Counters, rules: Rules) -> ServiceCounts:
    backends = {backend.name: backend for backend in rules.every_backend()}
    counts = finished(counts_in_steps(counters, rules, backends))
    return ServiceCounts(**attrs.asdict(counts, recurse=False))
