"""What has to be replaced in one version of the rules to get another one. Pure."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs

from txmux.classes import frozen
from txmux.detection.ranked import GAP, ListChange
from txmux.rules.model import Backend, Listener, Route, Rules, Settings

T = TypeVar("T")

_MOST_SPLICES = 200


@frozen
class Splice(Generic[T]):
    """Items in the place of those from `start` to before `stop`; positions are those of the older sequence."""

    start: int
    stop: int
    items: tuple[T, ...]


@frozen
class Difference:
    """How rules become others.

    Attributes:
        settings: ``None`` if they are the same.
        listeners: In ascending order, like `routes`.
        routes: What has moved is among those that go and among those that come.
        backends: New and changed ones, by name.
        gone_backends: Names that the newer rules lack.
    """

    path: Path
    settings: Settings | None = None
    listeners: tuple[Splice[Listener], ...] = ()
    routes: tuple[Splice[Route], ...] = ()
    backends: dict[str, Backend] = attrs.field(factory=dict)
    gone_backends: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many sections come or go."""
        spliced: tuple[Splice[Any], ...] = (*self.listeners, *self.routes)
        count = sum(one.stop - one.start + len(one.items) for one in spliced)
        return count + len(self.backends) + len(self.gone_backends)

    @property
    def is_small(self) -> bool:
        return len(self.routes) + len(self.listeners) <= _MOST_SPLICES

    def apply(self, old: Rules) -> Rules:
        """Make the newer rules of the older ones, whose other parts they share."""
        backends = {**old.backends, **self.backends}
        for name in self.gone_backends:
            del backends[name]
        listeners = tuple(spliced(old.listeners, self.listeners))
        routes = tuple(spliced(old.routes, self.routes))
        return Rules(self.path, self.settings or old.settings, listeners, routes, backends)


def difference(old: Rules, new: Rules) -> Difference:
    """Find what is different: by identity first, then by value; neither files nor sections of files count."""
    return Difference(
        new.path,
        None if _is_same(old.settings, new.settings) else new.settings,
        (*splices(old.listeners, new.listeners, _NAME_AND_TRANSPORT, _is_same),),
        (*splices(old.routes, new.routes, _NAME, is_same_route),),
        {
            name: backend
            for name, backend in new.backends.items()
            if not _is_same(old.backends.get(name), backend)
        },
        tuple(name for name in old.backends if name not in new.backends),
    )


def digest(rules: Rules) -> str:
    """Return what rules with the same sections in the same order have, so that two processes know that they agree."""
    names = [*map(_NAME, rules.routes), "", *map(_NAME, rules.listeners), str(len(rules.backends))]
    return blake2b("\n".join(names).encode(), digest_size=16).hexdigest()


_NAME, _NAME_AND_TRANSPORT = attrgetter("name"), attrgetter("name", "transport")


def spliced(items: Sequence[T], splices: Sequence[Splice[T]]) -> list[T]:
    made = [*items]
    for one in reversed(splices):
        made[one.start : one.stop] = one.items
    return made


def rank(
    items: Sequence[T], ranks: Sequence[int], splices: Sequence[Splice[T]]
) -> tuple[list[int], ListChange[T], list[T]] | None:
    """Rank the items that are added.

    Returns:
        The ranks of the newer sequence, what changes, and the items that go; None if there is no room between two ranks.
    """
    made, gone, new = [*ranks], list[range](), list[tuple[int, T]]()
    for one in reversed(splices):
        count = len(one.items)
        own: Sequence[int] = ranks[one.start : one.stop]
        if len(own) != count:
            before = ranks[one.start - 1] if one.start else None
            after = ranks[one.stop] if one.stop < len(ranks) else None
            if before is None:
                before = 0 if after is None else after - GAP * (count + 1)
            if after is None:
                after = before + GAP * (count + 1)
            step = (after - before) // (count + 1)
            if not step:
                return None
            own = range(before + step, before + step * count + 1, step)
        made[one.start : one.stop] = own
        gone.append(range(one.start, one.stop))
        new[:0] = zip(own, one.items, strict=True)
    positions = [at for some in reversed(gone) for at in some]
    return made, ListChange([ranks[at] for at in positions], new), [items[at] for at in positions]


def is_same_route(one: Route, other: Route) -> bool:
    """Return whether routes are the same, by the lines of their matchers and not by what a matcher has made of them."""
    if one is other:
        return True
    return (
        _plain(one) == _plain(other)
        and _is_same(one.outcome, other.outcome)
        and [line.text for line in one.alternatives] == [line.text for line in other.alternatives]
    )


_plain = attrgetter(
    *(
        field.name
        for field in attrs.fields(Route)
        if field.eq and field.name not in {"alternatives", "outcome"}
    )
)


def _is_same(one: object, other: object) -> bool:
    return one is other or one == other


def splices(
    old: Sequence[T], new: Sequence[T], key: Callable[[T], object], is_same: Callable[[T, T], bool]
) -> Iterator[Splice[T]]:
    """Yield the fewest splices that keep the order of the others, as far as each key occurs once."""
    first = _count_same(old, new, is_same)
    tail = _count_same(
        old[: first - len(old) - 1 : -1] if first < len(old) else (),
        new[: first - len(new) - 1 : -1] if first < len(new) else (),
        is_same,
    )
    end, new_end = len(old) - tail, len(new) - tail
    known = {key(old[at]): at for at in range(first, end)}
    kept: list[tuple[int, int]] = []  # positions in both
    for at in range(first, new_end):
        before = known.get(key(new[at]))
        if before is not None and is_same(old[before], new[at]):
            kept.append((before, at))
    start, new_start = first, first
    for before, at in (*_ascending(kept), (end, new_end)):
        if before > start or at > new_start:
            yield Splice(start, before, tuple(new[new_start:at]))
        start, new_start = before + 1, at + 1


def _count_same(old: Sequence[T], new: Sequence[T], is_same: Callable[[T, T], bool]) -> int:
    count = 0
    for one, other in zip(old, new, strict=False):
        if one is not other and not is_same(one, other):
            break
        count += 1
    return count


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest part of pairs, in their order, whose first numbers ascend: patience sorting."""
    if all(one[0] < other[0] for one, other in pairwise(pairs)):
        return [*pairs]
    tops: list[int] = []  # the least last number of an ascending part, by its length less 1
    ends: list[int] = []  # where it ends, in `pairs`
    before: list[int] = []  # the position in `pairs` before each
    for at, (number, _) in enumerate(pairs):
        length = bisect_left(tops, number)
        before.append(ends[length - 1] if length else -1)
        tops[length : length + 1] = [number]
        ends[length : length + 1] = [at]
    found, at = [], ends[-1]
    while at >= 0:
        found.append(pairs[at])
        at = before[at]
    return found[::-1]
