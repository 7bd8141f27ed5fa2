"""The matcher for Telnet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TelnetMatcher"]

_WILL_OR_DO = rb"\xff[\xfb\xfd][\x00-\x31\x8a-\x8c\xff]"


@implementer(IProtocolMatcher)
class TelnetMatcher:
    """Matches a Telnet client that negotiates at once: IAC, WILL or DO, and an option (RFC 854).

    The options are those of the IANA registry "Telnet Options": 0 to 49, 138 to 140 and 255. WON'T and DON'T can
    only be answers, since all options are off in the beginning and no party may announce what is so already
    (RFC 854, "General Considerations").
    """

    name = "telnet"
    summary = "Telnet clients that begin with the negotiation of options"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return RegexPredicate(compile_pattern(_WILL_OR_DO), 3)
