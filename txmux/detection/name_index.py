"""An index of routes by a name that a client asks for, as far as it is known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic

from txmux.detection.ranked import K, RanksByKey

if TYPE_CHECKING:
    from txmux.interfaces import NameKey, Peeked


class NameIndex(Generic[K]):
    """Finds, among many routes that go by one name of a client, those that a name may match."""

    def __init__(self, key: NameKey, before: NameIndex[K] | None = None) -> None:
        self.key = key
        self._exact: RanksByKey[str] = RanksByKey(None if before is None else before._exact)
        self._under: RanksByKey[str] = RanksByKey(None if before is None else before._under)
        # By whether the beginning of a name may rule them out, and by their conditions.
        self._all: RanksByKey[tuple[bool, K | None]] = RanksByKey(
            None if before is None else before._all
        )
        # That there ever was.
        self._longest: int = 0 if before is None else before._longest
        self._sorted: list[tuple[str, int]] | None = None

    def add(self, rank: int, key: NameKey, conditions: K | None) -> None:
        self._all.add((_is_told_by_beginning(key), conditions), rank)
        for name in key.exact:
            self._exact.add(name, rank)
        for name in key.under:
            self._under.add(name, rank)
            self._longest = max(self._longest, len(name))

    def remove(self, rank: int, key: NameKey, conditions: K | None) -> None:
        self._all.remove((_is_told_by_beginning(key), conditions), rank)
        for name in key.exact:
            self._exact.remove(name, rank)
        for name in key.under:
            self._under.remove(name, rank)

    def finish(self) -> bool:
        """Return whether any route is left."""
        for ranks in (self._exact, self._under, self._all):
            ranks.finish()
        return bool(self._all.lists)

    def named(
        self,
        peeked: Peeked,
        serves: Callable[[K], bool] | None,
        by_beginning: bool,  # noqa: FBT001
    ) -> Iterable[Sequence[int]]:
        key, begun = self.key, ""
        try:
            name = key.read(peeked)
            if name is None and by_beginning and key.begun is not None:
                begun = key.begun(peeked)
        except Exception:  # noqa: BLE001 - a plugin's reader that raises rules out no route
            return self._all.lists.values()
        if name is None:
            if serves is None:
                return ()
            left = [
                ranks
                for (is_told, conditions), ranks in self._all.lists.items()
                if not (begun and is_told) and (conditions is None or serves(conditions))
            ]
            return [*left, self._beginning_with(begun)] if begun else left
        found = [self._exact.get(name)]
        if self._under.lists:
            # A client may send a name of many thousand labels, of which only the last can be known.
            at = name.find(".", max(0, len(name) - self._longest - 1))
            while at >= 0:
                if below := self._under.get(name[at + 1 :]):
                    found.append(below)
                at = name.find(".", at + 1)
        return found

    def _beginning_with(self, begun: str) -> Sequence[int]:
        if self._sorted is None:
            names = self._exact.lists.items()
            self._sorted = sorted((name, rank) for name, ranks in names for rank in ranks)
        start, end = (bisect_left(self._sorted, (begun + more,)) for more in ("", "\U0010ffff"))
        return sorted({rank for _, rank in self._sorted[start:end]})


def _is_told_by_beginning(key: NameKey) -> bool:
    return key.begun is not None and not key.under
