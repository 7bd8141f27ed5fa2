"""The matcher for whatever a client says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AnyMatcher"]


@attrs.frozen
class _AnyPredicate:
    longest: int = 1

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return Verdict.MATCH if peeked.data else Verdict.NEED_MORE


@implementer(IProtocolMatcher)
class AnyMatcher:
    """Matches every client at its first byte; one that says nothing is the listener's ``silent``."""

    name = "any"
    summary = "anything at all, from its first byte"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _AnyPredicate()
