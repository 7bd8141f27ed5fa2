"""Matches the first request between nodes of Elasticsearch and OpenSearch (the transport protocol, port 9300).

``ES``, the length, the number of the request, the status, which is that of a request, and the version of the node. What
clients say to port 9200 is HTTP.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_HEADER = 8 + 1 + 4
_LONGEST_MESSAGE = 1 << 30
_COMPRESSED, _HANDSHAKE = 0x04, 0x08
_REQUESTS = frozenset({0, _COMPRESSED, _HANDSHAKE, _COMPRESSED | _HANDSHAKE})
_VERSION_1, _HIGHEST_VERSION = 1_000_000, 0x0FFF_FFFF
"""OpenSearch adds 0x08000000 to its own."""


def _read_header(cursor: Cursor) -> None:
    cursor.literal(b"ES")
    cursor.number(4, _HEADER, _LONGEST_MESSAGE)
    cursor.number(8, 0, (1 << 63) - 1)
    cursor.one_of(_REQUESTS)
    cursor.number(4, _VERSION_1, _HIGHEST_VERSION)


elasticsearch = PlainMatcher(
    "elasticsearch",
    "Elasticsearch and OpenSearch between nodes, by the header of the first request",
    Fields(_read_header, longest=2 + 4 + _HEADER),
    source="TcpHeader.java, TransportStatus.java and Version.java of Elasticsearch and of OpenSearch",
)
