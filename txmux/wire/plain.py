"""Matchers without options, written as data."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PlainMatcher"]


@implementer(IProtocolMatcher)
@attrs.frozen(slots=False)
class PlainMatcher:
    """A matcher without options: one predicate, and its words.

    Args:
        name: The word after ``match =``: lower-case letters, digits and ``-``.
        summary: One line that says what is recognised.
        predicate: What says so; `txmux.wire.predicates` has some to begin with.
        source: Where the first bytes of the protocol are specified, for readers of the code.
    """

    name: str
    summary: str
    _predicate: Predicate
    source: str = attrs.field(default="", kw_only=True)
    options: tuple[Option, ...] = attrs.field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        # It is from where it is written down, as a class is: `txmux matchers` tells the package by that.
        object.__setattr__(
            self, "__module__", sys._getframe(2).f_globals.get("__name__", "__main__")
        )

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Give the predicate, the same for all lines."""
        return self._predicate
