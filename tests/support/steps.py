"""Runs at once what a service does in steps."""

import attrs

from txmux.control.gauges import ServiceCounts
from txmux.detection.ranked import finish
from txmux.rules.model import Rules
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.snapshot import counts_in_steps


def counts_of(counters: Counters, rules: Rules) -> ServiceCounts:
    backends = {backend.name: backend for backend in rules.every_backend()}
    counts = finish(counts_in_steps(counters, rules, backends))
    return ServiceCounts(**attrs.asdict(counts, recurse=False))
