"""The matcher for IRC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IrcMatcher"]

_LONGEST_LINE = 512
_WORD = rb"[^\x00\r\n :][^\x00\r\n ]*"
_TEXT = rb"[^\x00\r\n]+"
_LINES = b"|".join(
    (
        rb"CAP (?:LS|LIST|REQ|END)(?: [^\x00\r\n]*)?",
        rb"PASS %b" % _TEXT,
        rb"NICK :?%b ?" % _WORD,
        rb"USER %b(?: %b){2} %b" % (_WORD, _WORD, _TEXT),
        rb"WEBIRC %b(?: %b){2} %b" % (_WORD, _WORD, _TEXT),
    )
)
_PREDICATE = RegexPredicate(
    compile_pattern(rb"(?i:%b)[\r\n]" % _LINES, within=_LONGEST_LINE), _LONGEST_LINE
)


@implementer(IProtocolMatcher)
class IrcMatcher:
    """Matches the first line with which an IRC client registers.

    That is ``PASS``, ``NICK`` or ``USER`` (RFC 2812, section 3.1), ``CAP`` (IRCv3 "Capability negotiation") or
    ``WEBIRC`` (IRCv3 "WebIRC") in any case, with the parameters that they need, in a line of at most 512 bytes
    without NUL (RFC 2812, section 2.3). The CR or LF that ends it decides.
    """

    name = "irc"
    summary = "IRC clients, by the first line of their registration"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
