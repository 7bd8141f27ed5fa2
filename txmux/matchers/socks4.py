"""The matcher for SOCKS 4 and 4a."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Socks4Matcher"]

_LONGEST = 8 + 256 + 256
_REQUEST = (
    rb"(?s)\x04[\x01\x02](?:[^\x00].|\x00[^\x00])"
    rb"(?:"
    rb"(?:[^\x00]...|\x00[^\x00]..|\x00\x00[^\x00].|\x00{4})[^\x00-\x1f\x7f]*\x00"
    rb"|"
    rb"\x00{3}[^\x00][^\x00-\x1f\x7f]*\x00[^\x00-\x20\x7f]+\x00"
    rb")"
)


@implementer(IProtocolMatcher)
class Socks4Matcher:
    """Matches the request of a SOCKS client, version 4 or 4a.

    The sources are "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee) and its extension "SOCKS 4A":
    4, CONNECT (1) or BIND (2), a port, an IPv4 address, a user ID that ends with a NUL; and behind the address
    0.0.0.x, x not 0, a host name that ends with a NUL.
    """

    name = "socks4"
    summary = "SOCKS 4 and 4a, by the request"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return RegexPredicate(compile_pattern(_REQUEST, within=_LONGEST), _LONGEST)
