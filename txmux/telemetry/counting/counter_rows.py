"""The rows of what is counted, from which follow its cells, how those of several processes are combined, and its metrics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

import attrs

from txmux.classes import frozen
from txmux.rules.installed import rows as rows_of_features

Cells = Sequence[int] | memoryview
Combine = Callable[[Sequence[int]], int]
Samples = Iterable[tuple[Sequence[str], Any]]
"""The values of a metric, each behind those of its labels."""
_T = TypeVar("_T")


def only(value: Any, _: object = None) -> Samples:
    return [((), value)]


def newest(cells: Sequence[int]) -> int:
    return next(filter(None, reversed(cells)), 0)


@frozen
class Metric:
    """A row of `/metrics`.

    Attributes:
        name: Without the prefix; that of a counter ends in ``_total``.
        help: What it is, in a sentence, for Prometheus and the reference.
        labels: The names of its labels.
        samples: Makes them of a value of the row, and of all numbers.
        more: What else the reference says, in Markdown.
    """

    name: str
    help: str
    labels: str = ""
    samples: Callable[[Any, Any], Samples] = only
    more: str = ""
    kind: str = attrs.field()

    @kind.default
    def _kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"


@frozen
class Observed:
    """A histogram: for each bucket but the last, its highest value and the number of all that were no higher; and number and sum of all."""

    buckets: Sequence[tuple[float, int]]
    count: int
    sum: float


class CounterRow(Generic[_T]):
    """A row in the class of a group, by whose name the value is read out of the cells of `Totals`.

    Args:
        texts: The name of its metric, `Metric.help` and `Metric.more`; nothing if it has none.
        cell: The name of its cells; by default that of the row.
        group: The kind of `Totals` that a feature's row is one of.
        combine: How the cells of several processes become one.
        shown: Whether the metric has its value for these `Totals`.

    Attributes:
        at: The position of its first cell.
        label: The further one of its metric.
    """

    at: int
    label = ""

    def __init__(
        self, *texts: str, cell: str = "", combine: Combine = sum, shown: Callable[[Any], bool] | None = None, group: str = ""
    ) -> None:  # fmt: skip
        self.texts, self.cell, self.group = texts, cell, group
        self.combine, self._shown = combine, shown

    def __set_name__(self, owner: type, name: str) -> None:
        self.cell = self.cell or name.replace("_", " ")

    @overload
    def __get__(self, totals: None, owner: type) -> Self: ...
    @overload
    def __get__(self, totals: Totals, owner: type) -> _T: ...
    def __get__(self, totals: Totals | None, owner: type) -> Self | _T:
        return self if totals is None else self.read(totals.cells)

    def names(self) -> list[str]:
        return [self.cell]

    def read(self, cells: Cells) -> _T:
        return cast("_T", cells[self.at])

    def samples(self, everything: Iterable[Totals], _: object) -> Samples:
        shown = filter(self._shown, everything) if self._shown else everything
        values = ((totals.labels, self.read(totals.cells)) for totals in shown)
        return (sample for sample in values if sample[1] is not None)

    def metric(self, labels: Iterable[str]) -> Metric:
        name, text, *more = self.texts
        return Metric(name, text, " ".join((*labels, self.label)).strip(), self.samples, *more)


class Counter(CounterRow[int]):
    """One cell."""


class Cell(CounterRow[_T]):
    """One cell, of which a value is made."""

    def __init__(self, of: Callable[[int], _T], *texts: str, **how: Any) -> None:
        super().__init__(*texts, **how)
        self._of = of

    def read(self, cells: Cells) -> _T:
        return self._of(cells[self.at])


class CounterByWord(CounterRow[dict[str, int]]):
    """A cell for each of some words, which are the values of a label; `chosen` returns those that the metric has, by all values."""

    def __init__(
        self, words: Iterable[str], *texts: str, label: str = "",
        chosen: Callable[[Mapping[str, int]], Iterable[str]] = iter, **how: Any,
    ) -> None:  # fmt: skip
        super().__init__(*texts, **how)
        self.words, self.label, self._chosen = [*words], label, chosen

    def names(self) -> list[str]:
        return [f"{self.cell} {word}" for word in self.words]

    @property
    def positions(self) -> Mapping[str, int]:
        return {word: at for at, word in enumerate(self.words, self.at)}

    @property
    def span(self) -> slice:
        return slice(self.at, self.at + len(self.words))

    def read(self, cells: Cells) -> dict[str, int]:
        return dict(zip(self.words, cells[self.span], strict=True))

    def word(self, word: str) -> Computed[int]:
        return Computed(lambda cells: cells[self.at + self.words.index(word)])

    def samples(self, everything: Iterable[Totals], _: object) -> Samples:
        for totals in everything:
            values = self.read(totals.cells)
            for word in self._chosen(values):
                yield (*totals.labels, word), values[word]


class Histogram(CounterRow[Observed]):
    """A cell with the sum of the observed values, then one for each bucket with their number.

    Args:
        bounds: The highest value of each bucket but the last, in the unit that is observed.
        base: Observed units in one reported unit: 1000 for milliseconds reported as seconds, whose sum has thousandths of them.
        is_of_all: Whether its metric is one for all that is counted so.
    """

    def __init__(
        self, bounds: Sequence[float], *texts: str, base: int = 1, is_of_all: bool = False, **how: Any
    ) -> None:  # fmt: skip
        super().__init__(*texts, **how)
        self.bounds, self._base, self._is_of_all = bounds, base, is_of_all

    def names(self) -> list[str]:
        which = "sum", *(f"{bound:g}" for bound in self.bounds), "rest"
        return [f"{self.cell} {word}" for word in which]

    @property
    def counts(self) -> slice:
        return slice(self.at + 1, self.at + 2 + len(self.bounds))

    def read(self, cells: Cells) -> Observed:
        *below, count = itertools.accumulate(cells[self.counts])
        bounds = [bound / self._base for bound in self.bounds]
        return Observed([*zip(bounds, below, strict=True)], count, cells[self.at] / self._base**2)

    def samples(self, everything: Iterable[Totals], _: object) -> Samples:
        if not self._is_of_all:
            return super().samples(everything, _)
        sums = [sum(same) for same in zip(*(totals.cells for totals in everything), strict=True)]
        return only(self.read(sums)) if sums else []

    def metric(self, labels: Iterable[str]) -> Metric:
        return attrs.evolve(super().metric(() if self._is_of_all else labels), kind="histogram")


class Computed(CounterRow[_T]):
    """What is read out of other cells; its metric is not there where it is ``None``."""

    def __init__(self, of: Callable[[Any], _T], *texts: str) -> None:
        super().__init__(*texts)
        self._of = of

    def names(self) -> list[str]:
        return []

    def read(self, cells: Cells) -> _T:
        return self._of(cells)


class Name:
    """A name of what is counted, and so a label of its metrics."""

    at: int

    def __get__(self, totals: Totals, owner: type) -> str:
        return totals.labels[self.at]


@frozen
class Totals:
    """The numbers of a listener, of a route, and so on. A subclass has its rows, which are read on demand, since there may be very many.

    Attributes:
        labels: The names of what is counted.
        kind: What it is.
        names: The names of the cells, in their order.
        others: The positions of cells that are not just added up, and how those of several processes are combined.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    others: ClassVar[Sequence[tuple[int, Combine]]]
    metrics: ClassVar[Sequence[Metric]]

    labels: tuple[str, ...]
    cells: Sequence[int] = attrs.field(repr=False)

    def __init_subclass__(cls, kind: str) -> None:
        labels = {name: its for name, its in vars(cls).items() if isinstance(its, Name)}
        for at, label in enumerate(labels.values()):
            label.at = at
        rows = [row for row in vars(cls).values() if isinstance(row, CounterRow)]
        rows += [row for row in rows_of_features(CounterRow) if row.group == kind]
        cells: list[tuple[str, Combine]] = []
        for row in rows:
            row.at = len(cells)
            cells += [(name, row.combine) for name in row.names()]
        cls.kind, cls.names = kind, tuple(name for name, _ in cells)
        cls.others = [(at, how) for at, (_, how) in enumerate(cells) if how is not sum]
        cls.metrics = [row.metric(labels) for row in rows if row.texts]

    @classmethod
    def key(cls, *labels: str) -> str:
        return "\n".join((cls.kind, *labels))

    @classmethod
    def of(cls, cells: Callable[[str], Sequence[int]], *labels: str) -> Self:
        return cls(labels, cells(cls.key(*labels)))

    @classmethod
    def combine(cls, blocks: Sequence[Sequence[int]]) -> list[int]:
        """Make one block of those of several processes, the newest last."""
        if not blocks:
            return [0] * len(cls.names)
        cells = [*map(sum, zip(*blocks, strict=True))]
        for at, how in cls.others:
            cells[at] = how([block[at] for block in blocks])
        return cells
