"""Matches the first request of a STUN, TURN or ICE client over TCP.

That is a Binding request, or for TURN an Allocate request or a ConnectionBind request; then the length, a multiple of
4, and the magic cookie. No first request is near to the 4092 bytes that are taken here, and a lower bound parts it
sooner from others that begin with a zero.

The connectivity check with which ICE begins a TCP connection is a Binding request, too, behind its length in two bytes.
Both lengths have to agree.
"""

from __future__ import annotations

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Fields

_BINDING, _ALLOCATE, _CONNECTION_BIND = 0x001, 0x003, 0x00B
_LARGEST = 0x0FFC
_MAGIC_COOKIE = 0x2112A442
_HEADER = 20


def _read_header(cursor: Cursor) -> None:
    request = cursor.number(2, _BINDING, _HEADER + _LARGEST)
    if request >= _HEADER and request % 4 == 0:
        length = request - _HEADER
        cursor.number(2, _BINDING, _BINDING)
        cursor.number(2, length, length)
    elif request in {_BINDING, _ALLOCATE, _CONNECTION_BIND}:
        if cursor.number(2, 0, _LARGEST) % 4:
            raise MalformedError
    else:
        raise MalformedError
    cursor.number(4, _MAGIC_COOKIE, _MAGIC_COOKIE)


stun = PlainMatcher(
    "stun",
    "STUN, TURN and ICE over TCP",
    Fields(_read_header, longest=2 + 8),
    source="RFC 8489, sections 5 and 6.2.2; RFC 6544, section 3; RFC 4571, section 2",
)
