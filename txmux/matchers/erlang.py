"""Matches the first message between Erlang nodes, or a request to their port mapper, EPMD.

After a length of two bytes, from a node ``send_name`` in its old form (``n``) or its new one (``N``), of which flags
and lengths are checked; to EPMD ALIVE2_REQ (``x``), PORT_PLEASE2_REQ (``z``), NAMES_REQ (``n``), DUMP_REQ (``d``),
KILL_REQ (``k``) or STOP_REQ (``s``). Decided at the end of the name, if there is one.
"""

import re

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_LONGEST_NAME = 255 * 4
_LONGEST_MESSAGE = 2047
_NOT_IN_NAME = re.compile(rb"[\x00-\x20\x7f]")
_MANDATORY = 0x0104
"""DFLAG_EXTENDED_REFERENCES and DFLAG_EXTENDED_PIDS_PORTS, without which no node was ever let in."""
_HANDSHAKE_23 = 1 << 24
_NAME_ME = 1 << 33


def _read_message(cursor: Cursor) -> None:
    length = cursor.number(2, 1, _LONGEST_MESSAGE)
    tag = cursor.number(1, ord("N"), ord("z"))
    if length == 1:
        if tag not in b"ndk":
            raise MalformedError
        return
    if tag not in _MESSAGES:
        raise MalformedError
    least, most, read = _MESSAGES[tag]
    if not least <= length <= most:
        raise MalformedError
    read(cursor, length)


def _read_old_name(cursor: Cursor, length: int) -> None:
    cursor.number(2, 5, 5)
    _read_flags(cursor, 4, _MANDATORY)
    _read_name(cursor, length - 1 - 2 - 4, signs=1)


def _read_new_name(cursor: Cursor, length: int) -> None:
    flags = _read_flags(cursor, 8, _MANDATORY | _HANDSHAKE_23)
    cursor.take(4)
    size = cursor.number(2, 1, min(length - 1 - 8 - 4 - 2, _LONGEST_NAME))
    _read_name(cursor, size, signs=0 if flags & _NAME_ME else 1)


def _read_alive(cursor: Cursor, length: int) -> None:
    cursor.number(2, 1, 0xFFFF)
    if chr(cursor.number(1, ord("H"), ord("M"))) not in "HM":
        raise MalformedError
    cursor.number(1, 0, 0)
    cursor.number(2, 5, 0xFF)
    cursor.number(2, 1, 0xFF)
    size = cursor.number(2, 1, min(length - 13, _LONGEST_NAME))
    _read_name(cursor, size, signs=0)


def _read_request_with_name(cursor: Cursor, length: int) -> None:
    _read_name(cursor, length - 1, signs=0)


def _read_flags(cursor: Cursor, size: int, required: int) -> int:
    flags = 0
    for wanted in required.to_bytes(size, "big"):
        byte = cursor.number(1, wanted, 0xFF)
        if byte & wanted != wanted:
            raise MalformedError
        flags = flags << 8 | byte
    return flags


def _read_name(cursor: Cursor, size: int, *, signs: int) -> None:
    """Read a name with this number of ``@``, none of them in front."""
    there = cursor.data[cursor.at : cursor.at + size]
    if _NOT_IN_NAME.search(there) or there.startswith(b"@") or there.count(b"@") > signs:
        raise MalformedError
    if cursor.take(size).count(b"@") != signs:
        raise MalformedError


_MESSAGES = {
    ord("n"): (1 + 2 + 4 + 1, 1 + 2 + 4 + _LONGEST_NAME, _read_old_name),
    ord("N"): (1 + 8 + 4 + 2 + 1, _LONGEST_MESSAGE, _read_new_name),
    ord("x"): (13 + 1, _LONGEST_MESSAGE, _read_alive),
    ord("z"): (1 + 1, 1 + _LONGEST_NAME, _read_request_with_name),
    ord("s"): (1 + 1, 1 + _LONGEST_NAME, _read_request_with_name),
}
"""By tag: the shortest message, the longest one, and what reads it."""

erlang = PlainMatcher(
    "erlang",
    "Erlang's distribution protocol, and requests to EPMD",
    Fields(_read_message, longest=2 + 1 + 8 + 4 + 2 + _LONGEST_NAME),
    source='"Distribution Protocol" in the ERTS User\'s Guide',
)
