"""Matches the hello of a client of ClickHouse's own protocol.

That is packet 0, the client's name, its version in two numbers, and the revision of the protocol; numbers, and lengths of
text, have seven bits in each byte. A name has at most 127 characters here. The protocol over HTTP is ``http``.
"""

import re

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_HELLO = 0
_LONGEST_NAME = 127
_NOT_IN_NAME = re.compile(rb"[^ -~]")
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_REVISIONS = range(50_000, 60_000)
"""All that there were; 54,448 is of the year 2021."""


def _read_hello(cursor: Cursor) -> None:
    cursor.number(1, _HELLO, _HELLO)
    size = cursor.number(1, 3, _LONGEST_NAME)
    cursor.one_of(_LETTERS)
    if _NOT_IN_NAME.search(cursor.data, cursor.at, cursor.at + size - 1):
        raise MalformedError
    cursor.take(size - 1)
    for _ in range(2):  # the major version, and the minor one
        if cursor.number(1, 0, 0xFF) >= 0x80:
            cursor.number(1, 1, 0x7F)
    low, middle, high = (cursor.number(1, least, most) for least, most in _REVISION)
    if low % 0x80 + middle % 0x80 * 0x80 + high * 0x4000 not in _REVISIONS:
        raise MalformedError


_REVISION = ((0x80, 0xFF), (0x80, 0xFF), (0x03, 0x03))
"""The least and the greatest byte of each of its three."""

clickhouse = PlainMatcher(
    "clickhouse",
    "ClickHouse, by the hello of its own protocol",
    Fields(_read_hello, longest=2 + _LONGEST_NAME + 2 * 2 + 3),
    source='"Native protocol" of ClickHouse\'s documentation, "Client packets", "Hello"',
)
