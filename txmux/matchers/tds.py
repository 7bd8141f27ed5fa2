"""Matches the pre-login packet of a SQL Server client.

The header of eight bytes: type 0x12, a single packet, its length, process and packet numbers, window 0. Then the
option that comes first, VERSION, with the offset and the length of its data.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_PRELOGIN, _END_OF_MESSAGE = 0x12, 0x01
_HEADER = 8
_OPTION = 5
_TERMINATOR = 1
_VERSION_SIZE = 6
_SHORTEST_PACKET = _HEADER + _OPTION + _TERMINATOR + _VERSION_SIZE
_LONGEST_PACKET = 32_767


def _read_prelogin(cursor: Cursor) -> None:
    cursor.literal(bytes([_PRELOGIN, _END_OF_MESSAGE]))
    length = cursor.number(2, _SHORTEST_PACKET, _LONGEST_PACKET)
    cursor.take(2 + 1)
    cursor.literal(b"\x00\x00")
    cursor.number(2, _OPTION + _TERMINATOR, length - _HEADER - _VERSION_SIZE)
    cursor.number(2, _VERSION_SIZE, _VERSION_SIZE)


tds = PlainMatcher(
    "tds",
    "Microsoft SQL Server (TDS), by its pre-login packet",
    Fields(_read_prelogin, longest=_HEADER + _OPTION),
    source="[MS-TDS] 2.2.3.1, 2.2.6.5 and 4.1",
)
