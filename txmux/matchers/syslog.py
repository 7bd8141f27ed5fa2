"""The matcher for syslog over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SyslogMatcher"]

_COUNT = rb"[1-9][0-9]{0,5} "
_PRIORITY = rb"<(?:[0-9]|[1-9][0-9]|1[0-8][0-9]|19[01])>"
_PREDICATE = RegexPredicate(compile_pattern(rb"(?:%b)?%b" % (_COUNT, _PRIORITY)), 12)


@implementer(IProtocolMatcher)
class SyslogMatcher:
    """Matches the beginning of the first syslog message on a TCP connection (RFC 6587, section 3.4).

    A message begins with ``<PRIVAL>``, a number from 0 to 191 without leading zeros (RFC 5424, section 6.2.1; RFC
    3164, section 4.1.1). With octet counting its length and a blank come before it: a number without leading zeros,
    here of at most six digits.
    """

    name = "syslog"
    summary = "syslog over TCP, with octet counting or without"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
