"""Matches the first packet that a web server sends to a servlet container in AJP.

The magic number, the length, and a request to be forwarded, up to the ``HTTP/`` of its protocol; or the CPing with which
the server asks whether the container is there.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_MAGIC = b"\x12\x34"
_FORWARD_REQUEST, _CPING = 0x02, 0x0A
_PROTOCOL = b"\x00\x08HTTP/"
_METHODS = frozenset({*range(1, 28), 0xFF})
_LONGEST_PACKET = 0xFFFF - 3


def _read_packet(cursor: Cursor) -> None:
    cursor.literal(_MAGIC)
    if cursor.number(2, 1, _LONGEST_PACKET) == 1:
        cursor.number(1, _CPING, _CPING)
        return
    cursor.number(1, _FORWARD_REQUEST, _FORWARD_REQUEST)
    cursor.one_of(_METHODS)
    cursor.literal(_PROTOCOL)


ajp = PlainMatcher(
    "ajp",
    "AJP 1.3, by the first packet of a web server",
    Fields(_read_packet, longest=2 + 2 + 1 + 1 + len(_PROTOCOL)),
    source='"AJP Protocol Reference" 1.3 and "AJP: extension proposal" of Apache Tomcat Connectors',
)
