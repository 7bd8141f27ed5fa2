"""Matches the first command of a memcached client, in either of the two protocols.

Text: a command in lower case with the arguments that it must have, up to the blank or the end of the line behind
them. Binary: magic 0x80, opcode, the lengths of key and extras that it may have, data type 0, vbucket 0, and the length
of a body that has both and, with some opcodes, a value.
"""

from txmux.classes import frozen
from txmux.wire import Cursor, Either, Fields, Pattern, PlainMatcher

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
_LONGEST_KEY = 250
_LONGEST_BODY = 1 << 30


@frozen
class _TextRequest:
    """The lengths that extras and key may have, and whether a value comes behind the key."""

    opcodes: tuple[int, ...]
    extras: tuple[int, ...] = (0,)
    keys: tuple[int, int] = (1, _LONGEST_KEY)
    value: bool = False


_REQUESTS = {
    opcode: request
    for request in (
        _TextRequest((0x00, 0x09, 0x0C, 0x0D, 0x04, 0x14)),  # get and delete
        # Set, add, replace.
        _TextRequest((0x01, 0x02, 0x03, 0x11, 0x12, 0x13), extras=(8,), value=True),
        _TextRequest((0x05, 0x06, 0x15, 0x16), extras=(20,)),  # increment, decrement
        # Quit, noop, version, list of SASL.
        _TextRequest((0x07, 0x0A, 0x0B, 0x17, 0x20), keys=(0, 0)),
        _TextRequest((0x08, 0x18), extras=(0, 4), keys=(0, 0)),  # flush
        _TextRequest((0x0E, 0x0F, 0x19, 0x1A), value=True),  # append, prepend
        _TextRequest((0x10,), keys=(0, _LONGEST_KEY)),  # stat
        _TextRequest((0x1B,), extras=(4,), keys=(0, 0)),  # verbosity
        _TextRequest((0x1C, 0x1D, 0x1E, 0x23, 0x24), extras=(4,)),  # touch, get and touch
        _TextRequest((0x21, 0x22), value=True),  # SASL
    )
    for opcode in request.opcodes
}


def _read_binary_header(cursor: Cursor) -> None:
    cursor.number(1, _MAGIC, _MAGIC)
    request = _REQUESTS[cursor.one_of(_REQUESTS)]
    key = cursor.number(2, *request.keys)
    extras = cursor.one_of(request.extras)
    cursor.number(3, 0, 0)
    cursor.number(4, key + extras, _LONGEST_BODY if request.value else key + extras)


memcached = PlainMatcher(
    "memcached",
    "memcached, text and binary protocol",
    Either(Pattern(_TEXT, within=_LONGEST_COMMAND), Fields(_read_binary_header, longest=12)),
    source="doc/protocol.txt, doc/protocol-binary.xml and protocol_binary.h of memcached",
)
