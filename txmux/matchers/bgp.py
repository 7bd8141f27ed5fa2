"""Matches the OPEN message with which a BGP peer begins: the marker of 16 bytes, the length, the type, and version 4."""

from txmux.wire import Cursor, Fields, PlainMatcher

_MARKER = b"\xff" * 16
_SHORTEST, _LONGEST = 29, 4096
_OPEN, _VERSION = 1, 4


def _read_open(cursor: Cursor) -> None:
    cursor.literal(_MARKER)
    cursor.number(2, _SHORTEST, _LONGEST)
    cursor.literal(bytes((_OPEN, _VERSION)))


bgp = PlainMatcher(
    "bgp",
    "BGP-4, by the OPEN message",
    Fields(_read_open, longest=len(_MARKER) + 4),
    source="RFC 4271, sections 4.1 and 4.2",
)
