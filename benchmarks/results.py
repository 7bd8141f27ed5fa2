"""What was measured, as a value that can be kept in a file."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

import attrs

from benchmarks.measures import COUNTED, MEASURES
from benchmarks.proxies import PROXIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Figure
    from benchmarks.proxies import Proxy

FIGURES: dict[str, Figure] = {
    figure.key: figure for measure in (*MEASURES, *COUNTED) for figure in measure.figures
}
"""All figures by their keys."""


@attrs.frozen
class Spread:
    """What came out of several rounds.

    Attributes:
        middle: The median.
        least: The least of all.
        most: The most of all.
    """

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Give that of values, if there are any."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@attrs.define
class Results:
    """The figures of one run.

    Attributes:
        machine: What it ran on: what, and which.
        rounds: How many there were.
        quick: Whether everything was on a small scale.
        commit: That of the code that was measured; empty if it is not known.
        samples: The values, by the key of the figure and then by that of the proxy, each at the place of its round; None where
            there is none.
        notes: What was left out or went wrong, by measure and proxy; the first of its kind.
    """

    machine: dict[str, str] = attrs.field(factory=dict)
    rounds: int = 0
    quick: bool = False
    commit: str = ""
    samples: dict[str, dict[str, list[float | None]]] = attrs.field(factory=dict)
    notes: dict[str, str] = attrs.field(factory=dict)

    def add(self, proxy: Proxy, values: dict[str, float], number: int = 1) -> None:
        """Take what was measured in the round with this number, from 1 on."""
        for key, value in values.items():
            known = self.samples.setdefault(key, {}).setdefault(proxy.key, [])
            known += [None] * (number - 1 - len(known))
            known.append(value)

    def note(self, what: str, text: str) -> None:
        """Take what a reader should know, if it is not known yet."""
        self.notes.setdefault(what, text)

    def spread(self, figure: str, proxy: str) -> Spread | None:
        """Give what came out of the rounds, if it was measured."""
        values = self.samples.get(figure, {}).get(proxy, [])
        return Spread.of([value for value in values if value is not None])

    def median(self, figure: str, proxy: str) -> float | None:
        """Give the median of the rounds, if it was measured."""
        found = self.spread(figure, proxy)
        return found.middle if found else None

    def best(self, figure: str, family: str) -> str | None:
        """Give the key of the configuration of a program that has the best median, if there is any."""
        medians = {
            proxy.key: median
            for proxy in PROXIES
            if proxy.family == family and (median := self.median(figure, proxy.key)) is not None
        }
        choose = max if FIGURES[figure].more_is_better else min
        return choose(medians, key=medians.__getitem__) if medians else None

    def ratio(self, figure: str, proxy: str, family: str) -> Spread | None:
        """Compare a proxy with the best configuration of a program, within each round.

        Programs take turns within a round, so what the machine does meanwhile strikes both and falls out of a ratio.

        Returns:
            What came out of the rounds in which both were measured, if there are any.
        """
        base = self.best(figure, family)
        if base is None:
            return None
        by_proxy = self.samples[figure]
        pairs = zip(by_proxy.get(proxy, []), by_proxy[base], strict=False)
        return Spread.of([mine / theirs for mine, theirs in pairs if mine is not None and theirs])

    def name(self) -> str:
        """Give the name of the machine and the date, for those who compare several."""
        processor = self.machine.get("CPU", "a machine").partition(",")[0]
        processor = processor.replace("(R)", "").replace(" Processor", "")
        return f"{processor}, {self.machine.get('date', 'at some time')}"

    def maker(self) -> str:
        """Give who made the processor, in lower case."""
        return self.name().split()[0].rstrip(",").lower()

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
