"""Matches the header of a MongoDB client's first message.

All numbers have the least significant byte first: the length, a number of the client's, 0 as it answers nothing, and
OP_MSG or OP_QUERY. The first message is the handshake ("MongoDB Handshake" of the driver specifications), which is
never compressed and has at most 512 bytes of metadata, and maybe a token; so less than 32 KiB are expected, which leaves
Telnet to others at the second byte.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_HEADER = 4 * 4
_SHORTEST_MESSAGE = _HEADER + 4 + 1 + 5
_LONGEST_MESSAGE = 0x7FFF
_OP_QUERY, _OP_MSG = 2004, 2013


def _read_message_header(cursor: Cursor) -> None:
    if not _SHORTEST_MESSAGE <= int.from_bytes(cursor.take(2), "little") <= _LONGEST_MESSAGE:
        raise MalformedError
    cursor.literal(b"\x00\x00")
    cursor.take(4)
    cursor.literal(bytes(4))
    cursor.one_of((_OP_QUERY & 0xFF, _OP_MSG & 0xFF))
    cursor.literal(bytes([_OP_MSG >> 8, 0, 0]))


mongodb = PlainMatcher(
    "mongodb",
    "MongoDB, by the header of the first message",
    Fields(_read_message_header, longest=_HEADER),
    source='"MongoDB Wire Protocol", "Standard Message Header"',
)
