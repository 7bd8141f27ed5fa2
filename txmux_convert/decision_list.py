"""Decisions by client, as a list of cases: the first whose condition is met wins.

Conditions are never negated: `otherwise` is the result for all other clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, combinations
from typing import Generic, TypeVar

import attrs

from txmux_convert.terms import Condition, InexpressibleError, Term, conjunction
from txmux_convert.writer import Report

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class DecidedCase(Generic[T]):
    """A condition on clients, its result, and the line of both."""

    condition: Condition
    result: T
    line: int = attrs.field(eq=False)


@attrs.frozen
class DecisionList(Generic[T]):
    """A result for each client."""

    cases: tuple[DecidedCase[T], ...]
    otherwise: T
    line: int = attrs.field(eq=False)

    def then(self, decide: Callable[[T, int], DecisionList[U]], lost: Report) -> DecisionList[U]:
        cases: list[DecidedCase[U]] = []
        for case in self.cases:
            inner = decide(case.result, case.line)
            for deeper in inner.cases:
                try:
                    condition = conjunction(case.condition, deeper.condition)
                except InexpressibleError as error:
                    lost(deeper.line, str(error))
                    continue
                if condition:
                    cases.append(attrs.evolve(deeper, condition=condition))
            cases.append(DecidedCase(case.condition, inner.otherwise, case.line))
        last = decide(self.otherwise, self.line)
        return DecisionList((*cases, *last.cases), last.otherwise, last.line)

    def simplified(self) -> DecisionList[T]:
        """Merge neighbours with the same result; drop conditions that an earlier case covers."""
        merged: list[tuple[DecidedCase[T], list[list[Term]]]] = []
        seen = _Terms()
        for case in self.cases:
            new = [term for term in case.condition if not seen.has_wider(term)]
            for term in new:
                seen.add(term)
            if new and merged and merged[-1][0].result == case.result:
                merged[-1][1].append(new)
            elif new:
                merged.append((case, [new]))
        cases = (attrs.evolve(case, condition=_joined(several)) for case, several in merged)
        return attrs.evolve(self, cases=tuple(cases))


def _joined(conditions: Sequence[Sequence[Term]]) -> Condition:
    """Merge alternatives; drop terms that another one covers."""
    different = dict.fromkeys(term for terms in conditions for term in terms)
    if len(conditions) == 1:
        return tuple(different)
    index = _Terms()
    for term in different:
        index.add(term)
    return tuple(term for term in different if not index.has_wider(term, than_itself=True))


class _Terms:
    """An index of terms: comparing thousands with each other would be slow."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[Term]] = {}

    def add(self, term: Term) -> None:
        key = (term.matcher, frozenset(term.options), term.allowed, term.hello)
        self._known.setdefault(key, []).append(term)

    def has_wider(self, term: Term, *, than_itself: bool = False) -> bool:
        return any(
            candidate.excluded <= term.excluded and not (than_itself and candidate == term)
            for matcher in {"", term.matcher}
            for count in range(len(term.options) + 1)
            for options in combinations(term.options, count)
            for allowed in {None, term.allowed}
            for candidate in self._known.get((matcher, frozenset(options), allowed, term.hello), ())
        )


def always(result: T, line: int) -> DecisionList[T]:
    return DecisionList((), result, line)


def group_by_result(
    items: Iterable[tuple[U, T]],
    overlap: Callable[[U, U], bool],
    is_single: Callable[[U], bool] = lambda _: False,
) -> list[tuple[list[U], T]]:
    """Group conditions that have the same result.

    Args:
        items: Conditions with their results; the first that matches wins, also in the groups.
        overlap: Returns whether a client can meet both.
        is_single: Returns whether a condition overlaps with no other single one; an optimisation only.
    """
    groups: list[tuple[list[U], T]] = []
    latest: dict[T, int] = {}
    """The latest group of each result."""
    others: list[tuple[U, int]] = []
    """Conditions that are not single, with the numbers of their groups."""
    singles: dict[U, int] = {}
    for item, result in items:
        number = latest.get(result)
        single = is_single(item)
        if number is not None:
            after: Iterable[tuple[U, int]] = others if single else chain(others, singles.items())
            if singles.get(item, 0) > number or any(
                later > number and overlap(item, other) for other, later in after
            ):
                number = None
        if number is None:
            number = latest[result] = len(groups)
            groups.append(([], result))
        groups[number][0].append(item)
        if not single:
            others.append((item, number))
        else:
            singles[item] = max(number, singles.get(item, 0))
    return groups


def most_common(results: Sequence[T]) -> T:
    return Counter(reversed(results)).most_common(1)[0][0]
