"""The matcher for SOCKS 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.reading import verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Socks5Matcher"]

_METHODS = frozenset({0, 1, 2, 3, 5, 6, 7, 8, 9, *range(0x80, 0xFF)})


@attrs.frozen
class _Socks5Predicate:
    longest: int = 2 + len(_METHODS)
    first_bytes: frozenset[int] = frozenset({5})

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return verdict_of(peeked.data, _read_greeting)


@implementer(IProtocolMatcher)
class Socks5Matcher:
    """Matches the greeting of a SOCKS 5 client (RFC 1928, section 3).

    That is 5, a number of methods and as many methods, no two of them alike. Methods are those that IANA has
    assigned ("SOCKS Methods") and the private ones from 80 to FE in hexadecimal.
    """

    name = "socks5"
    summary = "SOCKS 5, by the methods that the client offers"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _Socks5Predicate()


def _read_greeting(cursor: Cursor) -> None:
    cursor.number(1, 5, 5)
    left = set(_METHODS)
    for _ in range(cursor.number(1, 1, len(_METHODS))):
        method = cursor.number(1, 0, 0xFE)
        if method not in left:
            raise MalformedError
        left.remove(method)
