"""Matches the first request of a STUN or TURN client over TCP.

That is a Binding request, or for TURN an Allocate request or a ConnectionBind request; then the length, a multiple of
4, and the magic cookie. No first request is near to the 4092 bytes that are taken here, and a lower bound parts it
sooner from others that begin with a zero.
"""

from __future__ import annotations

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Fields

__all__ = ["stun"]

_BINDING, _ALLOCATE, _CONNECTION_BIND = 0x001, 0x003, 0x00B
_LARGEST = 0x0FFC
_MAGIC_COOKIE = 0x2112A442


def _read_header(cursor: Cursor) -> None:
    request = cursor.number(2, _BINDING, _CONNECTION_BIND)
    if request not in {_BINDING, _ALLOCATE, _CONNECTION_BIND}:
        raise MalformedError
    if cursor.number(2, 0, _LARGEST) % 4:
        raise MalformedError
    cursor.number(4, _MAGIC_COOKIE, _MAGIC_COOKIE)


stun = PlainMatcher(
    "stun",
    "STUN and TURN over TCP",
    Fields(_read_header, longest=8),
    source="RFC 8489, sections 5 and 6.2.2",
)
