"""The matcher for STUN and TURN over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.reading import verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StunMatcher"]

_BINDING, _ALLOCATE, _CONNECTION_BIND = 0x001, 0x003, 0x00B
_LARGEST = 0x0FFC
_MAGIC_COOKIE = 0x2112A442


@attrs.frozen
class _StunPredicate:
    longest: int = 8
    first_bytes: frozenset[int] = frozenset({0})

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return verdict_of(peeked.data, _read_header)


@implementer(IProtocolMatcher)
class StunMatcher:
    """Matches the first request of a STUN or TURN client over TCP (RFC 8489, sections 5 and 6.2.2).

    That is a Binding request, or for TURN an Allocate request (RFC 8656, section 17) or a ConnectionBind request
    (RFC 6062, section 6.1); then the length, a multiple of 4, and the magic cookie. No first request is near to the
    4092 bytes that are taken here, and a lower bound parts it sooner from others that begin with a zero.
    """

    name = "stun"
    summary = "STUN and TURN over TCP"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _StunPredicate()


def _read_header(cursor: Cursor) -> None:
    request = cursor.number(2, _BINDING, _CONNECTION_BIND)
    if request not in {_BINDING, _ALLOCATE, _CONNECTION_BIND}:
        raise MalformedError
    if cursor.number(2, 0, _LARGEST) % 4:
        raise MalformedError
    cursor.number(4, _MAGIC_COOKIE, _MAGIC_COOKIE)
