"""Matches the request with which an L2TP client begins a tunnel, of version 2 or 3.

That is a control message with its length and numbers, for no tunnel yet, the first of its side, whose first attribute says
that it is a Start-Control-Connection-Request, and whose attributes fill the datagram. Version 3 without UDP is not seen.
"""

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_CONTROL = 0xC8
"""A control message (T), with a length (L) and with numbers (S)."""
_VERSIONS = (2, 3)
_MESSAGE_TYPE = bytes.fromhex("8008 0000 0000 0001")
_HEADER_OF_ATTRIBUTE = 6
_MOST_ATTRIBUTES = 64
_RESERVED, _LENGTH = 0x3C00, 0x03FF


def _read_request(cursor: Cursor) -> dict[str, str]:
    cursor.number(1, _CONTROL, _CONTROL)
    version = cursor.one_of(_VERSIONS)
    size = len(cursor.data)
    cursor.number(2, size, size)
    cursor.literal(bytes(4 + 2 + 2))
    cursor.literal(_MESSAGE_TYPE)
    for _ in range(_MOST_ATTRIBUTES):
        if not cursor.left:
            break
        length = cursor.number(2, 0, 0xFFFF)
        size = length & _LENGTH
        if length & _RESERVED or size < _HEADER_OF_ATTRIBUTE:
            raise MalformedError
        cursor.take(size - 2)
    cursor.end()
    return {"version": str(version)}


l2tp = MessageMatcher(
    "l2tp",
    "L2TP versions 2 and 3, by the request for a tunnel",
    _read_request,
    facts=("version",),
    source="RFC 2661, sections 3.1 and 4.1; RFC 3931, sections 3.2.1, 4.1.2.1 and 5.1",
)
