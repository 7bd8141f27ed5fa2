"""Matches the record with which a web server begins a request in FastCGI.

Version 1, the type, the number of the request, eight bytes of content, and in these one of the three roles and the flag that
keeps the connection.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_BEGIN_REQUEST = b"\x01\x01"
_CONTENT = 8
_RESPONDER, _FILTER = 1, 3


def _read_begin_request(cursor: Cursor) -> None:
    cursor.literal(_BEGIN_REQUEST)
    cursor.number(2, 1, 0xFFFF)
    cursor.number(2, _CONTENT, _CONTENT)
    cursor.take(1 + 1)
    cursor.number(2, _RESPONDER, _FILTER)
    cursor.number(1, 0, 1)


fastcgi = PlainMatcher(
    "fastcgi",
    "FastCGI, by the record that begins a request",
    Fields(_read_begin_request, longest=8 + 3),
    source='"FastCGI Specification" 1.0, sections 3.3 and 5.1',
)
