"""Matches the first bytes of a BitTorrent peer.

Over TCP that is the byte 19 and the 19 characters ``BitTorrent protocol``. Obfuscated handshakes (Message Stream
Encryption) begin with a random public key and are none.

Over UDP there are three protocols: a request to connect to a tracker, 16 bytes with a magic number; the SYN of uTP, with
extensions that fill the datagram, and nothing received yet; and a query of the DHT, a dictionary with the ID of a node.
"""

import re
from collections.abc import Iterator

from txmux.interfaces import Transport
from txmux.wire import Cursor, MalformedError, PlainMatcher, Prefix, ShortError
from txmux.wire.messages import Message

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
    values = {}
    budget = iter(range(_MOST_VALUES))
    cursor.literal(b"d")
    while not _ends(cursor):
        name = _read_string(cursor)
        start = cursor.at
        text = _read_value(cursor, 1, budget)
        values[name] = cursor.data[start : cursor.at] if text is None else text
    return values


def _read_value(cursor: Cursor, depth: int, budget: Iterator[int]) -> bytes | None:
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


_TRACKER = bytes.fromhex("0000041727101980 00000000")
_SYN, _DICTIONARY = 0x41, ord("d")
_NODE_ID = 20
_LONGEST_QUERY = 2048
"""Values that nodes store have at most 1000 bytes (BEP 44); a longer query would only cost time."""


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    first = cursor.one_of({_TRACKER[0], _SYN, _DICTIONARY})
    cursor.at = 0
    if first == _SYN:
        _read_syn(cursor)
    elif first == _DICTIONARY:
        _read_query(cursor)
    else:
        cursor.literal(_TRACKER)
        cursor.take(4)
    cursor.end()
    return {}


def _read_syn(cursor: Cursor) -> None:
    cursor.take(1)
    extension = cursor.number(1, 0, 2)
    cursor.take(2 + 4)
    cursor.number(4, 0, 0)  # how long a packet of the other's took
    cursor.take(4 + 2)
    cursor.number(2, 0, 0)  # what has come
    while extension:
        extension = cursor.number(1, 0, 0xFF)
        cursor.take(cursor.number(1, 1, 0xFF))


def _read_query(cursor: Cursor) -> None:
    if cursor.left > _LONGEST_QUERY:
        raise MalformedError
    message = read_dictionary(cursor)
    arguments = message.get(b"a", b"")
    if message.get(b"y") != b"q" or b"q" not in message or b"t" not in message:
        raise MalformedError
    if len(read_dictionary(Cursor(arguments)).get(b"id", b"")) != _NODE_ID:
        raise MalformedError


bittorrent = PlainMatcher(
    "bittorrent",
    "BitTorrent peers, by their handshake in clear; over UDP also trackers' clients and the DHT",
    Prefix(b"\x13BitTorrent protocol"),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source='BEP 3, "peer protocol"; BEP 5, "KRPC Protocol"; BEP 15, "connect"; BEP 29, "header format"',
)
