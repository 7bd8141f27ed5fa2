"""The matcher for memcached."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.automaton import StreamPattern, compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.fields import FieldsPredicate, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["MemcachedMatcher"]

_COMMANDS = rb"""(?x:
    (?: (?: gets? | delete | m[adeg] ) \ KEY
      | gats? \ TIME \ KEY
      | (?: set | add | replace | append | prepend ) \ KEY \ NUMBER \ TIME \ NUMBER
      | cas \ KEY \ NUMBER \ TIME \ NUMBER \ NUMBER
      | (?: incr | decr ) \ KEY \ NUMBER
      | touch \ KEY \ TIME
      | ms \ KEY \ S?NUMBER
      | stats | version | verbosity | flush_all | slabs | lru | lru_crawler | watch | cache_memlimit | mn | quit
    ) (?: \  | \r?\n ) )"""
_ARGUMENTS = {
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
    extras = one_of(cursor, _EXTRAS)
    cursor.number(3, 0, 0)
    cursor.number(4, key + extras, _LONGEST_BODY)


_binary = FieldsPredicate(_read_binary_header, 12, frozenset({_MAGIC}))


@cache
def _text() -> StreamPattern:
    pattern = _COMMANDS
    for argument, expression in _ARGUMENTS.items():
        pattern = pattern.replace(argument, expression)
    return compile_pattern(pattern, within=_LONGEST_COMMAND)


@attrs.frozen
class _MemcachedPredicate:
    text: StreamPattern
    longest: int = _LONGEST_COMMAND
    first_bytes: frozenset[int] = frozenset({_MAGIC, *b"acdfgilmpqrstvw"})

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if peeked.data[:1] == bytes([_MAGIC]):
            return _binary(peeked)
        return peeked.parsed(self.text.scan).verdict


@implementer(IProtocolMatcher)
class MemcachedMatcher:
    """Matches the first command of a memcached client, in either of the two protocols.

    Text (``doc/protocol.txt`` of memcached): a command in lower case with the arguments that it must have, up to the
    blank or the end of the line behind them. Binary (``doc/protocol-binary.xml``, ``protocol_binary.h``): magic 0x80,
    opcode, lengths of key and extras, data type 0, vbucket 0, and a body that has room for both.
    """

    name = "memcached"
    summary = "memcached, text and binary protocol"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _MemcachedPredicate(_text())
