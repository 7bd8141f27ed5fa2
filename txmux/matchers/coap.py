"""Matches the request of a CoAP client; over TCP, the message with which a connection begins.

Over UDP version 1, confirmable or not, with the code of a method, a token of at most eight bytes, and options that fill the rest up
to the payload. Options that a server may not ignore have to be known, and options have the lengths that they may have.
What programs for Mitsubishi's controllers (MELSOFT) begin with would be a request with a payload: its header is a *no*. So
is the echo of GTP version 2, which one number in twenty makes a request.

Over TCP each side begins with its Capabilities and Settings Message (CSM): the length, no token, code 7.01, and options, of
which there has to be one. One byte of options is a *no*, as clients of MQTT begin so.
"""

from txmux.interfaces import Transport
from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher
from txmux.wire.messages import Message

_FIRST = frozenset(kind | size for kind in (0x40, 0x50) for size in range(9))
_METHODS = ("GET", "POST", "PUT", "DELETE", "FETCH", "PATCH", "iPATCH")
_MARKER = 0xFF
_LARGEST_NUMBER = 0xFFFF
_URI_PATH = 11
_LENGTHS = {
    1: (0, 8),  # If-Match
    3: (1, 255),  # Uri-Host
    4: (1, 8),  # ETag
    5: (0, 0),  # If-None-Match
    6: (0, 3),  # Observe
    7: (0, 2),  # Uri-Port
    9: (0, 255),  # OSCORE
    _URI_PATH: (0, 255),
    12: (0, 2),  # Content-Format
    13: (0, 1),  # EDHOC
    14: (0, 4),  # Max-Age
    15: (0, 255),  # Uri-Query
    16: (1, 1),  # Hop-Limit
    17: (0, 2),  # Accept
    19: (0, 3),  # Q-Block1
    23: (0, 3),  # Block2
    27: (0, 3),  # Block1
    28: (0, 4),  # Size2
    31: (0, 3),  # Q-Block2
    35: (1, 1034),  # Proxy-Uri
    39: (1, 255),  # Proxy-Scheme
    60: (0, 4),  # Size1
}
"""The numbers of the IANA registry, with the least and the most bytes that each has."""
_PRIVATE = 2048
_MELSOFT = bytes.fromhex("0000001111070000ffff0300")
"""Behind the first two bytes, as GX Works and ``melsecq-discover-udp.nse`` send it."""
_GTP_ECHO, _AT_GTP_ECHO = bytes.fromhex("00 03 0001 00"), 7
"""A spare byte and the first element of an echo (3GPP TS 29.274, section 7.1.1), behind the length and a number."""
_MOST_OPTIONS = 64
_EXTENDED = 13
_FIRST_OF_SETTINGS = frozenset(size << 4 for size in range(2, _EXTENDED + 1))
_SETTINGS = 0xE1
_OPTIONS_OF_SETTINGS = frozenset({0x21, 0x22, 0x23, 0x24, 0x40})
"""Max-Message-Size, in one to four bytes, and Block-Wise-Transfer."""


def _read_request(cursor: Cursor) -> dict[str, str]:
    token = cursor.one_of(_FIRST) & 0x0F
    method = _METHODS[cursor.number(1, 1, len(_METHODS)) - 1]
    if cursor.data.startswith(_MELSOFT, cursor.at) or (
        not token and cursor.data.startswith(_GTP_ECHO, _AT_GTP_ECHO)
    ):
        raise MalformedError
    cursor.take(2 + token)
    path = []
    option = 0
    for _ in range(_MOST_OPTIONS):
        if not cursor.left:
            break
        first = cursor.number(1, 0, 0xFF)
        if first == _MARKER:
            if not cursor.left:
                raise MalformedError
            break
        option += _extended(cursor, first >> 4)
        value = cursor.take(_extended(cursor, first & 0x0F))
        _check_option(option, len(value))
        if option == _URI_PATH:
            path.append(value.decode("latin-1"))
    else:
        raise MalformedError
    return {"method": method, "path": "/" + "/".join(path)}


def _read_settings(cursor: Cursor) -> None:
    size = cursor.one_of(_FIRST_OF_SETTINGS) >> 4
    if size == _EXTENDED:
        size += cursor.number(1, 0, 0xFF)
    cursor.number(1, _SETTINGS, _SETTINGS)
    if cursor.one_of(_OPTIONS_OF_SETTINGS) & 0x0F >= size:
        raise MalformedError


def _extended(cursor: Cursor, nibble: int) -> int:
    """Read what four bits say, or the bytes that they announce."""
    if nibble < 13:
        return nibble
    if nibble == 13:
        return cursor.number(1, 0, 0xFF) + 13
    if nibble == 14:
        return cursor.number(2, 0, _LARGEST_NUMBER) + 13 + 256
    raise MalformedError


def _check_option(number: int, size: int) -> None:
    if not 0 < number <= _LARGEST_NUMBER:
        raise MalformedError
    if number in _LENGTHS:
        least, most = _LENGTHS[number]
        if not least <= size <= most:
            raise MalformedError
    elif number % 2 and number < _PRIVATE:
        raise MalformedError


coap = PlainMatcher(
    "coap",
    "CoAP without TLS and DTLS",
    Fields(_read_settings, longest=4),
    transports=tuple(Transport),
    datagrams=Message(_read_request, facts=("method", "path")),
    source="RFC 7252, sections 3 and 5.10; RFC 8323, sections 3.2 and 5.3; the registry of CoAP option numbers",
)
