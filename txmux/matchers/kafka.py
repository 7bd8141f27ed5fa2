"""Matches the first request of a Kafka client.

Length, API key, API version, correlation id and the length of the client id (-1 for none), and the first byte of
that. The keys are those that begin a connection: ApiVersions, SaslHandshake and, with clients that know the broker's
versions already, Metadata, FindCoordinator, Produce, Fetch or ListOffsets. Produce is wanted in version 3 or later,
as in Kafka 4: with versions before that, queries of DNS and sessions of ZooKeeper look the same. As others write so
many zeros, too, it is read on to the transactional id (null, or not empty) and the acknowledgements (-1, 0 or 1).
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_HEADER = 2 + 2 + 4 + 2
_LONGEST_REQUEST = (1 << 24) - 1
_PRODUCE, _METADATA = 0, 3
_FIRST_KEYS = {
    _PRODUCE: (3, 31),
    1: (0, 31),  # Fetch
    2: (0, 31),  # ListOffsets
    _METADATA: (0, 31),
    10: (0, 31),  # FindCoordinator
    17: (0, 1),  # SaslHandshake
    18: (0, 31),  # ApiVersions
}
_FLEXIBLE_PRODUCE = 9
"""From this version on, lengths are varints, and tagged fields may follow the header."""
_LONGEST_ID = 1024
_LONGEST_PRODUCE = 4 + _HEADER + _LONGEST_ID + 1 + 2 + _LONGEST_ID + 2


def _read_request_header(cursor: Cursor) -> None:
    length = cursor.number(4, _HEADER, _LONGEST_REQUEST)
    key = cursor.number(2, 0, max(_FIRST_KEYS))
    if key not in _FIRST_KEYS:
        raise MalformedError
    version = cursor.number(2, *_FIRST_KEYS[key])
    # Metadata 0 and 2 are versions 3.0 and 3.2 of PostgreSQL, where a letter begins the next field.
    cursor.number(4, 0, 0x40FFFFFF if key == _METADATA else 0x7FFFFFFF)
    size = _read_size(cursor, 0, min(length - _HEADER, _LONGEST_ID))
    if key == _PRODUCE:
        _read_text(cursor, size)
        _read_produce(cursor, version)
    elif size:
        cursor.number(1, ord(" "), 0xFF)


def _read_size(cursor: Cursor, least: int, most: int) -> int:
    """Read the length of a text; that of null, -1, as none."""
    if cursor.data[cursor.at : cursor.at + 1] == b"\xff":
        cursor.literal(b"\xff\xff")
        return 0
    return cursor.number(2, least, most)


def _read_text(cursor: Cursor, size: int) -> None:
    if size > 0:
        cursor.number(1, ord(" "), 0xFF)
        cursor.take(size - 1)


def _read_produce(cursor: Cursor, version: int) -> None:
    if version < _FLEXIBLE_PRODUCE:
        size = _read_size(cursor, 1, _LONGEST_ID)
    else:
        cursor.number(1, 0, 0)  # no tagged fields
        size = cursor.number(1, 0, 0x7F) - 1
        if size == 0:
            raise MalformedError
    _read_text(cursor, size)
    if cursor.data[cursor.at : cursor.at + 1] == b"\xff":
        cursor.literal(b"\xff\xff")
    else:
        cursor.number(2, 0, 1)


kafka = PlainMatcher(
    "kafka",
    "Kafka, by the header of the first request",
    Fields(_read_request_header, longest=_LONGEST_PRODUCE),
    source='"Kafka protocol guide"; RequestHeader.json, versions 1 and 2',
)
