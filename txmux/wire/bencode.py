"""Bencode, the encoding of BitTorrent (BEP 3), as far as the names in a dictionary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from txmux.wire.cursor import Cursor, MalformedError, ShortError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 8
_MOST_VALUES = 64
"""In one dictionary, with those that are nested."""
_INTEGER = re.compile(rb"i-?[0-9]{1,20}e")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,4}):")


def read_dictionary(cursor: Cursor) -> dict[bytes, bytes]:
    """Read a dictionary, and move behind it.

    Args:
        cursor: Where it begins.

    Returns:
        Its strings by their names, without their lengths; numbers, lists and dictionaries as they are encoded.

    Raises:
        MalformedError: It is something else, or has more than 8 levels or 64 values.
        ShortError: It is not there in full.
    """
    found = {}
    budget = iter(range(_MOST_VALUES))
    cursor.literal(b"d")
    while not _ends(cursor):
        name = _read_string(cursor)
        start = cursor.at
        text = _read_value(cursor, 1, budget)
        found[name] = cursor.data[start : cursor.at] if text is None else text
    return found


def _read_value(cursor: Cursor, depth: int, budget: Iterator[int]) -> bytes | None:
    """Read a value, and give it if it is a string."""
    if depth > _DEEPEST or next(budget, None) is None:
        raise MalformedError
    kind = cursor.data[cursor.at : cursor.at + 1]
    if kind == b"i":
        integer = _INTEGER.match(cursor.data, cursor.at)
        if integer is None:
            raise MalformedError
        cursor.at = integer.end()
    elif kind in {b"l", b"d"}:
        cursor.at += 1
        while not _ends(cursor):
            if kind == b"d":
                _read_string(cursor)
            _read_value(cursor, depth + 1, budget)
    else:
        return _read_string(cursor)
    return None


def _ends(cursor: Cursor) -> bool:
    if not cursor.left:
        raise ShortError(cursor.at + 1)
    if cursor.data[cursor.at] != ord("e"):
        return False
    cursor.at += 1
    return True


def _read_string(cursor: Cursor) -> bytes:
    size = _SIZE.match(cursor.data, cursor.at)
    if size is None:
        raise MalformedError
    cursor.at = size.end()
    return cursor.take(int(size[1]))
