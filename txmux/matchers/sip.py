"""The matcher for SIP over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SipMatcher"]

_LONGEST_LINE = 8192
_METHODS = b"|".join(
    b"""
    ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE
    """.split()
)
_URI = rb"[A-Za-z][A-Za-z0-9+.-]*:[!-~\x80-\xff]+"
_LINE = rb"(?:\r\n){0,2}(?:%b) %b SIP/2\.0\r?\n" % (_METHODS, _URI)
_PREDICATE = RegexPredicate(compile_pattern(_LINE, within=_LONGEST_LINE), _LONGEST_LINE)


@implementer(IProtocolMatcher)
class SipMatcher:
    """Matches the first request line of a SIP client.

    That is a method of the IANA registry, a URI and ``SIP/2.0`` (RFC 3261, section 7.1), in a line of at most 8 KiB.
    Up to two empty lines may come before it (section 7.5), such as a ping (RFC 5626, section 4.4.1).
    """

    name = "sip"
    summary = "SIP, by the first request line"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
