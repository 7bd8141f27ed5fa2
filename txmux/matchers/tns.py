"""Matches the CONNECT packet of an Oracle client.

TNS has no public specification. The fields are those that Wireshark and the ``thin`` mode of python-oracledb know:
length, checksum 0, type 1, flags, checksum of the header 0, the version that is wanted (such as 0x013f) and the
oldest that will do (such as 0x012c), which is not later. Clients put more than about 230 bytes of connect data into a
packet of their own, so 1024 bytes are never reached.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_HEADER = 8
_SHORTEST_PACKET = _HEADER + 26
_LONGEST_PACKET = 1024
_CONNECT = 0x01
_LAST_FLAGS = 0x3F


def _read_connect(cursor: Cursor) -> None:
    cursor.number(2, _SHORTEST_PACKET, _LONGEST_PACKET)
    cursor.literal(bytes([0, 0, _CONNECT]))
    cursor.number(1, 0, _LAST_FLAGS)
    cursor.literal(b"\x00\x00")
    version = cursor.number(2, 0x0100, 0x01FF)
    cursor.number(2, 0x0100, version)


tns = PlainMatcher(
    "tns",
    "Oracle Database (TNS), by its CONNECT packet",
    Fields(_read_connect, longest=_HEADER + 4),
    source="packet-tns.c of Wireshark; connect.pyx of python-oracledb",
)
