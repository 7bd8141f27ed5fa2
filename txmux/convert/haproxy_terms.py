"""Conditions as txmux can have them: alternatives, each with one matcher and with networks."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import attrs

from txmux.convert.matching import match_line
from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model import IPNetwork

__all__ = ["ALWAYS", "NEVER", "Condition", "InexpressibleError", "Term", "both", "negated"]

_MOST_TERMS = 64


class InexpressibleError(MuxError):
    """A condition that txmux cannot have; the message says which part of it."""


@attrs.frozen
class Term:
    """What a client must be.

    Attributes:
        matcher: What it has to say; nothing if that does not matter.
        options: Of the matcher.
        negated: It has to say something else.
        allowed: The networks it has to be in; ``None`` for any.
        excluded: The networks it must not be in.
    """

    matcher: str = ""
    options: tuple[tuple[str, str], ...] = ()
    negated: bool = False
    allowed: frozenset[IPNetwork] | None = None
    excluded: frozenset[IPNetwork] = frozenset()

    def __str__(self) -> str:
        line = match_line(self.matcher or "any", self.options)
        return f"not {line}" if self.negated else line


Condition = tuple[Term, ...]
"""Any one of these is enough."""

ALWAYS: Condition = (Term(),)
NEVER: Condition = ()


def both(first: Condition, second: Condition) -> Condition:
    """Give what is true when both are.

    Raises:
        InexpressibleError: It takes two matchers at once.
    """
    if len(first) * len(second) > _MOST_TERMS:
        raise InexpressibleError("has too many combinations")
    pairs = (_both(a, b) for a in first for b in second)
    return tuple(dict.fromkeys(term for term in pairs if term is not None))


def negated(condition: Condition) -> Condition:
    """Give what is true when a condition is not.

    Raises:
        InexpressibleError: It takes two matchers at once, or asks for a silent client.
    """
    return reduce(both, map(_negated, condition), ALWAYS)


def _both(a: Term, b: Term) -> Term | None:
    allowed = _common(a.allowed, b.allowed)
    if allowed is not None and not allowed:
        return None
    says = _says(a, b)
    if says is None:
        return None
    return attrs.evolve(says, allowed=allowed, excluded=a.excluded | b.excluded)


def _common(
    a: frozenset[IPNetwork] | None, b: frozenset[IPNetwork] | None
) -> frozenset[IPNetwork] | None:
    if a is None or b is None:
        return b if a is None else a
    # Of two networks, one is inside the other, or they have nothing in common.
    return frozenset({n for n in a if _inside(n, b)} | {n for n in b if _inside(n, a)})


def _inside(network: IPNetwork, others: Iterable[IPNetwork]) -> bool:
    return any(
        network.version == other.version
        and network.network_address in other
        and network.prefixlen >= other.prefixlen
        for other in others
    )


def _says(a: Term, b: Term) -> Term | None:
    """Give the term of what both want to hear, ``None`` if no client can say it."""
    if (a.matcher, a.options, a.negated) == (b.matcher, b.options, b.negated):
        return a
    for one, other in ((a, b), (b, a)):
        if not one.matcher or (one.matcher == "any" and not other.negated):
            return other
    if a.matcher == b.matcher and not a.negated and not b.negated:
        first, second = dict(a.options), dict(b.options)
        if all(first[name] == second[name] for name in first.keys() & second.keys()):
            return attrs.evolve(a, options=tuple((first | second).items()))
        if a.matcher == "payload" and first.get("offset") == second.get("offset"):
            if first["hex"].startswith(second["hex"]):
                return a
            return b if second["hex"].startswith(first["hex"]) else None
    raise InexpressibleError(f"asks for {a} and {b} at once, and a line of match has one matcher")


def _negated(term: Term) -> Condition:
    if term.matcher == "any":
        raise InexpressibleError("asks for a client that says nothing, who is led by silent")
    found: list[Term] = []
    if term.matcher:
        found.append(Term(term.matcher, term.options, negated=not term.negated))
    if term.allowed is not None:
        found.append(Term(excluded=term.allowed))
    if term.excluded:
        found.append(Term(allowed=term.excluded))
    return tuple(found)
