"""Matches the first command of a memcached client, in either of the two protocols.

Text: a command in lower case with the arguments that it must have, up to the blank or the end of the line behind
them. Binary: magic 0x80, opcode, lengths of key and extras, data type 0, vbucket 0, and a body that has room for
both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Either, Fields, Pattern

if TYPE_CHECKING:
    from txmux.wire.cursor import Cursor

__all__ = ["memcached"]

_TEXT = rb"""(?x:
    (?: (?: gets? | delete | m[adeg] ) \ %(KEY)b
      | gats? \ %(TIME)b \ %(KEY)b
      | (?: set | add | replace | append | prepend ) \ %(KEY)b \ %(NUMBER)b \ %(TIME)b \ %(NUMBER)b
      | cas \ %(KEY)b \ %(NUMBER)b \ %(TIME)b \ %(NUMBER)b \ %(NUMBER)b
      | (?: incr | decr ) \ %(KEY)b \ %(NUMBER)b
      | touch \ %(KEY)b \ %(TIME)b
      | ms \ %(KEY)b \ S?%(NUMBER)b
      | stats | version | verbosity | flush_all | slabs | lru | lru_crawler | watch | cache_memlimit | mn | quit
    ) (?: \  | \r?\n ) )""" % {
    b"KEY": rb"[!-~\x80-\xff]{1,250}",
    b"NUMBER": b"[0-9]{1,20}",
    b"TIME": b"-?[0-9]{1,10}",
}
_LONGEST_COMMAND = 400
_MAGIC = 0x80
_LAST_OPCODE = 0x24
_EXTRAS = frozenset({0, 4, 8, 20})
_LONGEST_KEY = 250
_LONGEST_BODY = 1 << 30


def _read_binary_header(cursor: Cursor) -> None:
    cursor.number(1, _MAGIC, _MAGIC)
    cursor.number(1, 0, _LAST_OPCODE)
    key = cursor.number(2, 0, _LONGEST_KEY)
    extras = cursor.one_of(_EXTRAS)
    cursor.number(3, 0, 0)
    cursor.number(4, key + extras, _LONGEST_BODY)


memcached = PlainMatcher(
    "memcached",
    "memcached, text and binary protocol",
    Either(Pattern(_TEXT, within=_LONGEST_COMMAND), Fields(_read_binary_header, longest=12)),
    source="doc/protocol.txt, doc/protocol-binary.xml and protocol_binary.h of memcached",
)
