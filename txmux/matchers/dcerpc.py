"""Matches the bind with which a client of DCE/RPC begins over TCP, as those of Windows do.

Version 5.0 or 5.1, the type of the packet, that it is the first and the last fragment, how it represents numbers,
characters and fractions, and a length that the smallest bind has at least. DCE/RPC in SMB is `smb`, and in HTTP is `http`.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_VERSION = 5
_BIND = 0x0B
_ONLY_FRAGMENT = 0x03
_LITTLE_ENDIAN, _EBCDIC = 0x10, 0x01
_SHORTEST_BIND = 16 + 8 + 4 + 4 + 20 + 20


def _read_bind(cursor: Cursor) -> None:
    cursor.number(1, _VERSION, _VERSION)
    cursor.number(1, 0, 1)
    cursor.number(1, _BIND, _BIND)
    if cursor.number(1, 0, 0x7F) & _ONLY_FRAGMENT != _ONLY_FRAGMENT:
        raise MalformedError
    numbers = cursor.one_of({0, _EBCDIC, _LITTLE_ENDIAN, _LITTLE_ENDIAN | _EBCDIC})
    cursor.number(1, 0, 3)
    cursor.number(2, 0, 0)
    length = cursor.take(2)
    if int.from_bytes(length, "little" if numbers & _LITTLE_ENDIAN else "big") < _SHORTEST_BIND:
        raise MalformedError


dcerpc = PlainMatcher(
    "dcerpc",
    "DCE/RPC over TCP, by the client's bind",
    Fields(_read_bind, longest=10),
    source="DCE 1.1: Remote Procedure Call (C706), sections 12.6.3.1, 12.6.4.3 and 14.1; [MS-RPCE] 2.2.2",
)
