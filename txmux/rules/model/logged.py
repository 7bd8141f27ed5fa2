"""Which connections get a line in the access log."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Logged", "fewer"]

Logged: TypeAlias = bool | Literal["errors"]
"""All, none, or only those with something to look into."""

_ORDER: tuple[Logged, ...] = (False, "errors", True)


def fewer(one: Logged, other: Logged) -> Logged:
    """Return the one with fewer lines."""
    return one if one is other else min(one, other, key=_ORDER.index)
