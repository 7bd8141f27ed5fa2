"""Matches the first frame of DNP3, of a master or of an outstation that connects to one; over TCP, or as a datagram.

``05 64``, the length, a control byte that is of the station that begins (PRM) and has one of its functions, the two
addresses, and the sum over all of them.
"""

from txmux.interfaces import Transport
from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_START = b"\x05\x64"
_SHORTEST = 5
_PRIMARY = 0x40
_FUNCTIONS = frozenset({0, 2, 3, 4, 9})
"""Reset the link, test it, data with and without confirmation, ask for the state of the link."""
_CONTROLS = frozenset(byte for byte in range(256) if byte & _PRIMARY and byte & 0x0F in _FUNCTIONS)
_POLYNOMIAL = 0xA6BC
_HEADER = 8


def _read_frame(cursor: Cursor) -> None:
    cursor.literal(_START)
    cursor.number(1, _SHORTEST, 0xFF)
    cursor.one_of(_CONTROLS)
    cursor.take(2 + 2)
    expected = _sum(cursor.data[:_HEADER])
    if int.from_bytes(cursor.take(2), "little") != expected:
        raise MalformedError


def _sum(data: bytes) -> int:
    """Return the sum of a block: CRC-16 with the polynomial 0x3D65, the lowest bit first, inverted."""
    rest = 0
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (_POLYNOMIAL if rest & 1 else 0)
    return rest ^ 0xFFFF


dnp3 = PlainMatcher(
    "dnp3",
    "DNP3, by the header of the first frame",
    Fields(_read_frame, longest=_HEADER + 2),
    transports=tuple(Transport),
    source="IEEE 1815-2012, sections 9.2.4 and 13; packet-dnp.c of Wireshark",
)
