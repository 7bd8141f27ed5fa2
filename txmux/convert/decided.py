"""What depends on the client, as a list of cases: the first whose condition is met counts.

Conditions only ever say what a client is, never what it is not: the others are what is left at the end.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from txmux.convert.terms import Condition, InexpressibleError, both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from txmux.convert.terms import Term

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Case(Generic[T]):
    """Clients, what holds for them, and the line that says so."""

    condition: Condition
    result: T
    line: int = attrs.field(eq=False)


@attrs.frozen
class Decided(Generic[T]):
    """What holds for each client.

    Attributes:
        cases: In their order.
        otherwise: What holds for all others.
        line: Where that is said.
    """

    cases: tuple[Case[T], ...]
    otherwise: T
    line: int = attrs.field(eq=False)

    def then(
        self, decide: Callable[[T, int], Decided[U]], lost: Callable[[int, str], None]
    ) -> Decided[U]:
        """Decide further by the results.

        Args:
            decide: Gives what follows from a result, which a line says.
            lost: Is told of a line for which there is no condition in txmux.
        """
        found: list[Case[U]] = []
        for case in self.cases:
            inner = decide(case.result, case.line)
            for deeper in inner.cases:
                try:
                    condition = both(case.condition, deeper.condition)
                except InexpressibleError as error:
                    lost(deeper.line, str(error))
                    continue
                if condition:
                    found.append(attrs.evolve(deeper, condition=condition))
            found.append(Case(case.condition, inner.otherwise, case.line))
        last = decide(self.otherwise, self.line)
        return Decided((*found, *last.cases), last.otherwise, last.line)

    def simplified(self) -> Decided[T]:
        """Join neighbours that come to the same, and leave out who has been asked for before."""
        found: list[Case[T]] = []
        seen: list[Term] = []
        for case in self.cases:
            new = tuple(t for t in case.condition if not any(_has(wider, t) for wider in seen))
            seen += new
            if new and found and found[-1].result == case.result:
                terms = _distinct((*found[-1].condition, *new))
                found[-1] = attrs.evolve(found[-1], condition=terms)
            elif new:
                found.append(attrs.evolve(case, condition=new))
        return attrs.evolve(self, cases=tuple(found))


def _distinct(condition: Condition) -> Condition:
    """Leave out terms of which another one asks for less."""
    terms = tuple(dict.fromkeys(condition))
    return tuple(t for t in terms if not any(_has(wider, t) for wider in terms if wider != t))


def _has(wider: Term, term: Term) -> bool:
    """Tell whether all that meet a term meet another one, as far as that is plain."""
    return (
        wider.matcher in {"", term.matcher}
        and set(wider.options) <= set(term.options)
        and wider.allowed in {None, term.allowed}
        and wider.excluded <= term.excluded
    )


def always(result: T, line: int) -> Decided[T]:
    """Give what holds for every client."""
    return Decided((), result, line)


def in_groups(
    items: Iterable[tuple[U, T]], overlap: Callable[[U, U], bool]
) -> list[tuple[list[U], T]]:
    """Put together what comes to the same.

    Args:
        items: What is asked for, and what it comes to; the first that fits counts, and still does in the groups.
        overlap: Whether a client can be both.
    """
    groups: list[tuple[list[U], T]] = []
    for asked, result in items:
        for others, known in reversed(groups):
            if known == result:
                others.append(asked)
                break
            if any(overlap(asked, other) for other in others):
                groups.append(([asked], result))
                break
        else:
            groups.append(([asked], result))
    return groups


def commonest(results: Sequence[T]) -> T:
    """Give what is there most often, of several the last."""
    return Counter(reversed(results)).most_common(1)[0][0]
