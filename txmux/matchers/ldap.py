"""Matches the first message of an LDAP client.

A SEQUENCE with definite length, short or long, that begins with the message's number, 1 to 2147483647, and goes on
with the tag and the length of a request. A message has at most 10 MiB, which is what Active Directory takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.wire.ber import read_length
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Fields

if TYPE_CHECKING:
    from txmux.wire.cursor import Cursor

_SEQUENCE, _INTEGER = 0x30, 0x02
_REQUESTS = frozenset(
    {
        0x60,  # bind
        0x42,  # unbind
        0x63,  # search
        0x66,  # modify
        0x68,  # add
        0x4A,  # delete
        0x6C,  # modify DN
        0x6E,  # compare
        0x50,  # abandon
        0x77,  # extended, as StartTLS
    }
)
_SHORTEST_MESSAGE = 3 + 2
_LONGEST_MESSAGE = 10 << 20
_LONGEST_HEADER = 1 + 5 + 2 + 4 + 1 + 5


def _read_message(cursor: Cursor) -> None:
    cursor.number(1, _SEQUENCE, _SEQUENCE)
    end = read_length(cursor, _SHORTEST_MESSAGE, _LONGEST_MESSAGE) + cursor.at
    cursor.number(1, _INTEGER, _INTEGER)
    size = cursor.number(1, 1, 4)
    cursor.number(size, 1, (1 << 8 * size - 1) - 1)
    cursor.one_of(_REQUESTS)
    read_length(cursor, 0, end)


ldap = PlainMatcher(
    "ldap",
    "LDAP, by the beginning of the first request",
    Fields(_read_message, longest=_LONGEST_HEADER),
    source="RFC 4511, sections 4.1.1 and 5.1",
)
