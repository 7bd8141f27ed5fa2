"""Matches the first frame of a Cassandra client.

The header of nine bytes: version, flags, stream, opcode and length. The first opcode is OPTIONS, which has no body,
or STARTUP, whose body is a map that has CQL_VERSION and which cannot be compressed. Versions 0x41 and 0x42 are those
of DataStax Enterprise (``ProtocolVersion`` of the DataStax drivers), which they try first.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_DSE_1, _DSE_2 = 0x41, 0x42
_VERSIONS = frozenset({3, 4, 5, _DSE_1, _DSE_2})
_BETA = 0x10
_STARTUP, _OPTIONS = 0x01, 0x05
_SHORTEST_STARTUP = 2 + (2 + len("CQL_VERSION")) + (2 + 1)


def _read_frame_header(cursor: Cursor) -> None:
    cursor.one_of(_VERSIONS)
    cursor.one_of((0, _BETA))
    cursor.number(2, 0, 0x7FFF)
    if cursor.one_of((_STARTUP, _OPTIONS)) == _OPTIONS:
        cursor.number(4, 0, 0)
    else:
        cursor.number(4, _SHORTEST_STARTUP, 0xFFFF)


cassandra = PlainMatcher(
    "cassandra",
    "Cassandra (CQL native protocol 3 to 5, and DataStax Enterprise)",
    Fields(_read_frame_header, longest=9),
    source="native_protocol_v3.spec to v5, sections 2 and 4.1",
)
