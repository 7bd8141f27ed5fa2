"""Matches the first message of MikroTik's WinBox, whose protocol is not published.

From RouterOS 6.43 on it is a chunk (its length in one byte, then 6) with the user's name, a NUL, a public key of 32
bytes and its parity, 0 or 1. To older routers, and with "secure mode" off, it is a chunk of kind 1 with a length of
two bytes and ``M2``.

Of names only those are known that fit into one chunk, at most 221 bytes.
"""

import re

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_LONGEST_CHUNK = 255
_SHORTEST_PLAIN_CHUNK = 2 + 2 + 10
"""The length, ``M2``, and whom the message is for: a type of 4 bytes, a count of 2, and at least one number of 4."""
_NUL_AND_KEY = 1 + 32 + 1
_PLAIN, _AUTHENTICATION = 1, 6
_NOT_IN_NAME = re.compile(rb"[\x00-\x20\x7f]")
_MAGIC = int.from_bytes(b"M2", "big")


def _read_message(cursor: Cursor) -> None:
    chunk = cursor.number(1, _SHORTEST_PLAIN_CHUNK, _LONGEST_CHUNK)
    kind = cursor.number(1, _PLAIN, _AUTHENTICATION)
    if kind == _PLAIN:
        most = 0xFFFF if chunk == _LONGEST_CHUNK else chunk - 2
        cursor.number(2, chunk - 2, most)
        cursor.number(2, _MAGIC, _MAGIC)
    elif kind == _AUTHENTICATION and chunk > _NUL_AND_KEY:
        _read_authentication(cursor, chunk - _NUL_AND_KEY)
    else:
        raise MalformedError


def _read_authentication(cursor: Cursor, name_size: int) -> None:
    if _NOT_IN_NAME.search(cursor.data, cursor.at, cursor.at + name_size):
        raise MalformedError
    cursor.take(name_size)
    cursor.number(1, 0, 0)
    cursor.take(32)
    cursor.number(1, 0, 1)


winbox = PlainMatcher(
    "winbox",
    "MikroTik WinBox",
    Fields(_read_message, longest=2 + _LONGEST_CHUNK),
    source='Margin Research, "MikroTik Authentication Revealed"; Cisco Talos, Winbox_Protocol_Dissector; Nozomi Networks, pywinbox',
)
