"""Decisions on TLS that has ended, taken apart by what its first message asks for, which routes have to know before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy.decisions import Decisions
from txmux.convert.terms import Hello, InexpressibleError, both_hellos

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 64


def regions(decisions: Decisions, alpn: tuple[str, ...]) -> list[tuple[Hello, Decisions]]:
    """Return what a hello may ask for, and what is decided then; the first that fits counts, and the last one fits all.

    Args:
        decisions: What becomes of clients.
        alpn: The protocols that are spoken, the preferred first.

    Raises:
        InexpressibleError: It has too many combinations, or names that cannot be compared.
    """
    found: set[Hello] = {term.hello for choice in decisions.choices for term in choice.condition}
    named = {value for hello in found for name, value in hello if name == "alpn"}
    if named - set(alpn):
        raise InexpressibleError("asks for a protocol that bind does not speak")
    # A protocol is agreed on only by those who do not offer one that is preferred.
    last = max((alpn.index(value) for value in named), default=-1)
    found |= {(("alpn", value),) for value in alpn[: last + 1]}
    found = _closed(found | {()})
    # Of those that neither has in it, any may come first, but always the same one.
    order = sorted(found, key=lambda hello: (_rank(hello, found, alpn), hello))
    return [(hello, _within(hello, decisions)) for hello in order]


def _rank(hello: Hello, found: Iterable[Hello], alpn: tuple[str, ...]) -> tuple[int, int]:
    wider = sum(both_hellos(hello, other) == hello for other in found)
    preferred = dict(hello).get("alpn")
    return alpn.index(preferred) if preferred in alpn else len(alpn), -wider


def _closed(found: set[Hello]) -> set[Hello]:
    """Add what two of them have in common."""
    while True:
        more = {both for a in found for b in found if (both := both_hellos(a, b)) is not None}
        if more <= found:
            return found
        found |= more
        if len(found) > _MOST:
            raise InexpressibleError("has too many combinations of names")


def _within(hello: Hello, decisions: Decisions) -> Decisions:
    choices = []
    for choice in decisions.choices:
        terms = tuple(
            attrs.evolve(term, hello=())
            for term in choice.condition
            if both_hellos(hello, term.hello) == hello
        )
        if terms:
            choices.append(attrs.evolve(choice, condition=terms))
    return Decisions(tuple(choices), decisions.otherwise).distinct().shortened()
