"""The matcher for X11."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["X11Matcher"]

_SETUP = rb"(?s)l.\x0b\x00\x00\x00|B.\x00\x0b\x00\x00"


@implementer(IProtocolMatcher)
class X11Matcher:
    """Matches the connection setup of an X11 client ("X Window System Protocol", section 8, "Connection Setup").

    Its first byte is the byte order, ``l`` or ``B``; the second is unused; then come the versions of the protocol, 11
    and 0, in that order.
    """

    name = "x11"
    summary = "X11, by the connection setup"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return RegexPredicate(compile_pattern(_SETUP), 6)
