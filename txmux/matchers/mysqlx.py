"""Matches the first message of a client of MySQL's X Protocol.

That is a length of four bytes, the lowest first, the type, and a message in Protocol Buffers: the client asks what the server
can do (CapabilitiesGet, which is empty), says what it wants itself (CapabilitiesSet), or logs in (AuthenticateStart). The latter
are read up to the first name in them.
"""

import re

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_GET, _SET, _AUTHENTICATE = 1, 2, 4
_FIRST_FIELD = b"\x0a"
"""Number 1, with a length."""
_LONGEST_NAME = 64
_NOT_IN_NAME = re.compile(rb"[^0-9A-Za-z_.-]")
_LONGEST = 4 + 1 + 2 * (1 + 3) + 2 + _LONGEST_NAME


def _read_message(cursor: Cursor) -> None:
    size = int.from_bytes(cursor.take(2), "little")
    cursor.literal(b"\x00\x00")
    kind = cursor.one_of((_GET,) if size == 1 else (_SET, _AUTHENTICATE))
    end = cursor.at + size - 1
    if kind == _GET:
        return
    if kind == _SET:
        capabilities = _read_length(cursor, end)
        if cursor.at + capabilities != end:
            raise MalformedError
        if not capabilities:
            return
        end = cursor.at + _read_length(cursor, end)
    name_size = _read_length(cursor, min(end, cursor.at + 2 + _LONGEST_NAME))
    if not name_size or _NOT_IN_NAME.search(cursor.data, cursor.at, cursor.at + name_size):
        raise MalformedError
    cursor.take(name_size)


def _read_length(cursor: Cursor, end: int) -> int:
    """Read the key and the length of a field that ends by then: seven bits in each byte, the lowest first."""
    cursor.literal(_FIRST_FIELD)
    length = shift = 0
    while (byte := cursor.number(1, 0, 0xFF if shift < 14 else 0x7F)) >= 0x80:
        length |= (byte & 0x7F) << shift
        shift += 7
    length |= byte << shift
    if cursor.at + length > end:
        raise MalformedError
    return length


mysqlx = PlainMatcher(
    "mysqlx",
    "MySQL's X Protocol, by the first message",
    Fields(_read_message, longest=_LONGEST),
    source='"X Protocol" of MySQL\'s documentation for developers, "Messages" and "Authentication"; mysqlx.proto, mysqlx_connection.proto',
)
