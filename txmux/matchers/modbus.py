"""Matches the first request of a Modbus client over TCP.

The header: any number of the transaction, protocol 0, the length, and any unit. Then a public function, with the length
that its request has, and with the quantity, the value or the kind of thing that comes next and has to agree with it. Functions
for serial lines alone are a *no*: MongoDB, whose numbers have their least byte first, could look the same.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_PROTOCOL = b"\x00\x00"
_LONGEST_REQUEST = 254
_READ = {1: 2000, 2: 2000, 3: 125, 4: 125}
"""Functions that read coils or registers, and how many at most."""
_WRITE = {15: (1968, 1), 16: (123, 16)}
"""Functions that write them, how many at most, and how many bits each has."""
_WRITE_COIL, _WRITE_REGISTER, _REPORT_ID, _MASK, _READ_AND_WRITE, _QUEUE = 5, 6, 17, 22, 23, 24
_LENGTHS = {
    **dict.fromkeys((*_READ, _WRITE_COIL, _WRITE_REGISTER), 6),
    _REPORT_ID: 2,
    _MASK: 8,
    _QUEUE: 4,
}
"""Functions whose requests have one length, and that length."""
_FILE_RECORDS = {20: 7, 21: 9}
"""Functions on records of files, and the least length of what they say."""
_ENCAPSULATED, _INTERFACES = 43, frozenset({13, 14})
_FUNCTIONS = frozenset({*_LENGTHS, *_WRITE, _READ_AND_WRITE, *_FILE_RECORDS, _ENCAPSULATED})
_ON, _OFF = 0xFF00, 0


def _read_request(cursor: Cursor) -> None:
    cursor.take(2)
    cursor.literal(_PROTOCOL)
    length = cursor.number(2, 2, _LONGEST_REQUEST)
    cursor.take(1)
    function = cursor.one_of(_FUNCTIONS)
    _require(length == _LENGTHS.get(function, length))
    if function in _FILE_RECORDS:
        _require(length - 3 >= _FILE_RECORDS[function])
        cursor.number(1, length - 3, length - 3)
    elif function == _ENCAPSULATED:
        cursor.one_of(_INTERFACES)
    elif function in _READ:
        cursor.take(2)
        cursor.number(2, 1, _READ[function])
    elif function == _WRITE_COIL:
        cursor.take(2)
        _require(cursor.number(2, _OFF, _ON) in {_OFF, _ON})
    elif function == _READ_AND_WRITE:
        cursor.take(2)
        cursor.number(2, 1, 125)
        _read_values(cursor, length - 4, 121, 16)
    elif function in _WRITE:
        _read_values(cursor, length, *_WRITE[function])


def _read_values(cursor: Cursor, length: int, most: int, bits: int) -> None:
    """Read the address, the quantity and the number of bytes of what is written, of which `bits` make one."""
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
