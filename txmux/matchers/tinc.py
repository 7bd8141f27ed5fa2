"""The matcher for tinc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TincMatcher"]

_LONGEST = 300
_ID = rb"0 (?:[A-Za-z0-9_]+|\?[A-Za-z0-9+/_-]+) 17(?:\.[0-9]{1,3})?\n"


@implementer(IProtocolMatcher)
class TincMatcher:
    """Matches the ID request of a tinc daemon (tinc's ``protocol_auth.c``, ``send_id``).

    That is a line with the number of the request, 0, the daemon's name and the version of the meta-protocol: 17 in
    tinc 1.0, 17 with a minor version in 1.1. Who accepts an invitation has ``?`` and a key instead of a name
    (``invitation.c``). At most 300 bytes.
    """

    name = "tinc"
    summary = "tinc, by the ID request"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return RegexPredicate(compile_pattern(_ID, within=_LONGEST), _LONGEST)
