"""Ordered lists, of which copies are changed at the price of what changes.

Each item has a rank: a number by which it is found, and which it keeps while others come and go. Copies of lists are made, and
cut, by the interpreter at once; no step is taken for an item that stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

from txmux.classes import frozen

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_AT_ONCE = 256
"""Items that are looked at in one step: less than a millisecond."""

GAP = 1 << 32
"""Between neighbours at first: so often as this can be halved, something comes at the same place before all get new ranks."""

Cut: TypeAlias = "tuple[int, int, Sequence[tuple[int, T]]]"
"""The first position that goes, the one after the last, and what comes there, with its ranks."""


@frozen(eq=False)
class ListChange(Generic[T]):
    """What goes from a list, and what comes.

    Attributes:
        gone: Ranks in ascending order; of one that the list lacks, nothing goes.
        new: Ranks and items, in ascending order.
    """

    gone: Sequence[int]
    new: Sequence[tuple[int, T]]

    @classmethod
    def to_all(cls, items: Iterable[T]) -> ListChange[T]:
        return cls((), [(number * GAP, item) for number, item in enumerate(items)])

    def cuts(self, ranks: Sequence[int]) -> Generator[None, None, list[Cut[T]]]:
        """Return, in steps, what changes in a list with these ranks, from its end on; what is side by side is one cut."""
        found: dict[int, tuple[int, list[tuple[int, T]]]] = {}
        for number, rank in enumerate(self.gone):
            position = bisect_left(ranks, rank)
            if position < len(ranks) and ranks[position] == rank:
                found[position] = position + 1, []
            if not number % _AT_ONCE:
                yield
        for number, (rank, item) in enumerate(self.new):
            position = bisect_left(ranks, rank)
            found.setdefault(position, (position, []))[1].append((rank, item))
            if not number % _AT_ONCE:
                yield
        cuts: list[tuple[int, int, list[tuple[int, T]]]] = []
        for number, start in enumerate(sorted(found)):
            stop, new = found[start]
            if cuts and cuts[-1][1] == start:
                before, _, earlier = cuts[-1]
                earlier += new
                cuts[-1] = before, stop, earlier
            else:
                cuts.append((start, stop, new))
            if not number % _AT_ONCE:
                yield
        return [*reversed(cuts)]


@frozen(eq=False)
class RankedList(Generic[T]):
    """Items with their ranks; it does not change."""

    ranks: Sequence[int] = ()
    items: Sequence[T] = ()

    def at(self, rank: int) -> T:
        return self.items[bisect_left(self.ranks, rank)]

    def changed(self, change: ListChange[T]) -> Generator[None, None, RankedList[T]]:
        return self.cut((yield from change.cuts(self.ranks)))

    def cut(self, cuts: Iterable[Cut[T]]) -> RankedList[T]:
        ranks, items = [*self.ranks], [*self.items]
        for start, stop, new in cuts:
            ranks[start:stop] = [rank for rank, _ in new]
            items[start:stop] = [item for _, item in new]
        return RankedList(ranks, items)


class RanksByKey(Generic[K]):
    """For each key the ranks of the items that have it, in ascending order. Copies share the lists that are not changed."""

    def __init__(self, before: RanksByKey[K] | None = None) -> None:
        self._lists: dict[K, list[int]] = {} if before is None else before._lists.copy()
        self.lists: Mapping[K, Sequence[int]] = MappingProxyType(self._lists)
        self._own: set[K] = set()

    def get(self, key: K) -> Sequence[int]:
        return self._lists.get(key, ())

    def add(self, key: K, rank: int) -> None:
        ranks = self._to_change(key)
        if not ranks or ranks[-1] < rank:
            ranks.append(rank)
        elif ranks[at := bisect_left(ranks, rank)] != rank:
            ranks.insert(at, rank)

    def remove(self, key: K, rank: int) -> None:
        ranks = self._to_change(key)
        at = bisect_left(ranks, rank)
        if at < len(ranks) and ranks[at] == rank:
            del ranks[at]
        if not ranks:
            del self._lists[key]
            self._own.discard(key)

    def finish(self) -> None:
        self._own = set()

    def _to_change(self, key: K) -> list[int]:
        if key not in self._own:
            self._own.add(key)
            self._lists[key] = [*self._lists.get(key, ())]
        return self._lists[key]


def filtered(
    items: Iterable[tuple[int, T]], condition: Callable[[T], object]
) -> Generator[None, None, list[tuple[int, T]]]:
    """Return, in steps, the items that fulfil a condition, with their ranks."""
    found = []
    for number, item in enumerate(items):
        if condition(item[1]):
            found.append(item)
        if not number % _AT_ONCE:
            yield
    return found


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps at once."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
