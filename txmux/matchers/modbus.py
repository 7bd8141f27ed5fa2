"""Matches the first request of a Modbus client over TCP.

The header: any number of the transaction, protocol 0, the length, and any unit. Then a public function, with the length
that its request has; of functions that read and write, with the addresses, the quantity and the value that come next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.wire.cursor import MalformedError
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Fields

if TYPE_CHECKING:
    from txmux.wire.cursor import Cursor

__all__ = ["modbus"]

_PROTOCOL = b"\x00\x00"
_LONGEST_REQUEST = 254
_READS = {1: 2000, 2: 2000, 3: 125, 4: 125}
"""Functions that read, and how many they read at most."""
_WRITE_COIL, _WRITE_REGISTER, _WRITE_COILS, _WRITE_REGISTERS, _READ_AND_WRITE = 5, 6, 15, 16, 23
_OTHERS = {
    7: (2, 2),  # read exception status
    8: (6, _LONGEST_REQUEST),  # diagnostics
    11: (2, 2),  # get counter of events
    12: (2, 2),  # get log of events
    17: (2, 2),  # report server ID
    20: (10, _LONGEST_REQUEST),  # read file record
    21: (12, _LONGEST_REQUEST),  # write file record
    22: (8, 8),  # mask write register
    24: (4, 4),  # read FIFO queue
    43: (3, _LONGEST_REQUEST),  # encapsulated interface, as for device identification
}
"""Functions that are not looked into, and the least and the greatest length behind the header."""
_FUNCTIONS = frozenset(
    {
        *_READS,
        *_OTHERS,
        _WRITE_COIL,
        _WRITE_REGISTER,
        _WRITE_COILS,
        _WRITE_REGISTERS,
        _READ_AND_WRITE,
    }
)
_ON, _OFF = 0xFF00, 0


def _read_request(cursor: Cursor) -> None:
    cursor.take(2)
    cursor.literal(_PROTOCOL)
    length = cursor.number(2, 2, _LONGEST_REQUEST)
    cursor.take(1)
    function = cursor.one_of(_FUNCTIONS)
    if function in _OTHERS:
        least, most = _OTHERS[function]
        _require(least <= length <= most)
        return
    address = 2
    if function in _READS:
        _require(length == 6)
        cursor.take(address)
        cursor.number(2, 1, _READS[function])
    elif function == _WRITE_COIL:
        _require(length == 6)
        cursor.take(address)
        _require(cursor.number(2, _OFF, _ON) in {_OFF, _ON})
    elif function == _WRITE_REGISTER:
        _require(length == 6)
    elif function == _READ_AND_WRITE:
        cursor.take(address)
        cursor.number(2, 1, 125)
        _read_values(cursor, length - 4, 121, 16)
    else:
        most, bits = (1968, 1) if function == _WRITE_COILS else (123, 16)
        _read_values(cursor, length, most, bits)


def _read_values(cursor: Cursor, length: int, most: int, bits: int) -> None:
    """Read the address, the quantity and the number of bytes of what is written.

    Args:
        cursor: Where the address begins.
        length: How many bytes unit, function, these fields and the values have together.
        most: The greatest quantity.
        bits: What each of them has.
    """
    cursor.take(2)
    size = (cursor.number(2, 1, most) * bits + 7) // 8
    cursor.number(1, size, size)
    _require(length == 7 + size)


def _require(fits: bool) -> None:  # noqa: FBT001
    if not fits:
        raise MalformedError


modbus = PlainMatcher(
    "modbus",
    "Modbus TCP, by the first request",
    Fields(_read_request, longest=6 + 11),
    source='"MODBUS Messaging on TCP/IP Implementation Guide" 1.0b, section 3.1.3; '
    '"MODBUS Application Protocol Specification" 1.1b3, section 6',
)
