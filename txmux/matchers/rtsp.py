"""The matcher for RTSP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RtspMatcher"]

_LONGEST_LINE = 8192
_METHODS = b"|".join(
    b"""
    ANNOUNCE DESCRIBE GET_PARAMETER OPTIONS PAUSE PLAY PLAY_NOTIFY RECORD REDIRECT SETUP SET_PARAMETER TEARDOWN
    """.split()
)
_LINE = rb"(?:%b) [!-~\x80-\xff]+ RTSP/[12]\.0\r?\n" % _METHODS
_PREDICATE = RegexPredicate(compile_pattern(_LINE, within=_LONGEST_LINE), _LONGEST_LINE)


@implementer(IProtocolMatcher)
class RtspMatcher:
    """Matches the first request line of an RTSP client.

    That is a method of RTSP 1.0 (RFC 2326, sections 6.1 and 10) or 2.0 (RFC 7826, sections 7.1 and 13), a target and
    the version, in a line of at most 8 KiB. RTSP through an HTTP tunnel is HTTP.
    """

    name = "rtsp"
    summary = "RTSP 1.0 and 2.0, by the first request line"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
