"""Matches the first request of a Kafka client.

Length, API key, API version, correlation id and the length of the client id (-1 for none), and the first byte of
that. The keys are those that begin a connection: ApiVersions, SaslHandshake and, with clients that know the broker's
versions already, Metadata, FindCoordinator, Produce, Fetch or ListOffsets. Produce is wanted in version 3 or later,
as in Kafka 4: with versions before that, queries of DNS and sessions of ZooKeeper look the same.
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
_LONGEST_CLIENT_ID = 1024


def _read_request_header(cursor: Cursor) -> None:
    length = cursor.number(4, _HEADER, _LONGEST_REQUEST)
    key = cursor.number(2, 0, max(_FIRST_KEYS))
    if key not in _FIRST_KEYS:
        raise MalformedError
    cursor.number(2, *_FIRST_KEYS[key])
    # Metadata 0 and 2 are versions 3.0 and 3.2 of PostgreSQL, where a letter begins the next field.
    cursor.number(4, 0, 0x40FFFFFF if key == _METADATA else 0x7FFFFFFF)
    if cursor.data[cursor.at : cursor.at + 1] == b"\xff":
        cursor.literal(b"\xff\xff")
    elif cursor.number(2, 0, min(length - _HEADER, _LONGEST_CLIENT_ID)):
        cursor.number(1, ord(" "), 0xFF)


kafka = PlainMatcher(
    "kafka",
    "Kafka, by the header of the first request",
    Fields(_read_request_header, longest=4 + _HEADER + 1),
    source='"Kafka protocol guide"; RequestHeader.json, versions 1 and 2',
)
