"""The matcher for STOMP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StompMatcher"]

_PREDICATE = RegexPredicate(compile_pattern(rb"(?:CONNECT|STOMP)\r?\n"), 9)


@implementer(IProtocolMatcher)
class StompMatcher:
    """Matches the first line of a STOMP client (STOMP 1.2, sections "Augmented BNF" and "CONNECT or STOMP frame").

    That is ``CONNECT`` or ``STOMP`` and the end of the line, with which no request of HTTP begins.
    """

    name = "stomp"
    summary = "STOMP, by the command of the first frame"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
