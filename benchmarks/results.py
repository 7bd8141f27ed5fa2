"""What was measured, as a value that can be kept in a file."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

import attrs

from benchmarks.measures import MEASURES
from benchmarks.proxies import PROXIES

if TYPE_CHECKING:
    from benchmarks.bench import Figure
    from benchmarks.proxies import Proxy

FIGURES: dict[str, Figure] = {
    figure.key: figure for measure in MEASURES for figure in measure.FIGURES
}
"""All figures by their keys."""


@attrs.define
class Results:
    """The figures of one run.

    Attributes:
        machine: What it ran on: what, and which.
        rounds: How many there were.
        quick: Whether everything was on a small scale.
        samples: The values of all rounds, by the key of the figure and then by that of the proxy.
        notes: What was left out or went wrong, by measure and proxy; the first of its kind.
    """

    machine: dict[str, str] = attrs.field(factory=dict)
    rounds: int = 0
    quick: bool = False
    samples: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    notes: dict[str, str] = attrs.field(factory=dict)

    def add(self, proxy: Proxy, values: dict[str, float]) -> None:
        """Take the values of one round."""
        for key, value in values.items():
            self.samples.setdefault(key, {}).setdefault(proxy.key, []).append(value)

    def note(self, what: str, text: str) -> None:
        """Take what a reader should know, if it is not known yet."""
        self.notes.setdefault(what, text)

    def median(self, figure: str, proxy: str) -> float | None:
        """Give the median of the rounds, if it was measured."""
        values = self.samples.get(figure, {}).get(proxy)
        return statistics.median(values) if values else None

    def best(self, figure: str, family: str) -> float | None:
        """Give the median of the best of all configurations of a program, if there is any."""
        medians = [self.median(figure, p.key) for p in PROXIES if p.family == family]
        known = [median for median in medians if median is not None]
        if not known:
            return None
        return max(known) if FIGURES[figure].more_is_better else min(known)

    def measured(self) -> list[Proxy]:
        """Give the proxies of which there is anything."""
        keys = {key for by_proxy in self.samples.values() for key in by_proxy}
        return [proxy for proxy in PROXIES if proxy.key in keys]

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read it."""
        return cls(**json.loads(text))
