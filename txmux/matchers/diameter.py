"""Matches the request with which a Diameter peer opens a connection (Capabilities-Exchange-Request).

Version 1, a length that is a multiple of four, the flags of a request alone, the command, and the application 0 that is common to
all. Behind two more numbers follow attributes, those that name the peer among the first.
"""

from txmux.interfaces import Option
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.globs import hosts
from txmux.wire.messages import MessageMatcher
from txmux.wire.predicates import Fields

_HEADER, _BEFORE_ATTRIBUTES = 12, 20
_ATTRIBUTE = 8
_LONGEST = 0xFFFC
_REQUEST = bytes.fromhex("80 000101 00000000")
_VENDOR = 0x80
_NAMES = {264: "origin_host", 296: "origin_realm"}


def _read_header(cursor: Cursor) -> int:
    cursor.literal(b"\x01")
    length = cursor.number(3, _BEFORE_ATTRIBUTES + _ATTRIBUTE, _LONGEST)
    if length % 4:
        raise MalformedError
    cursor.literal(_REQUEST)
    return length


def _read_request(cursor: Cursor) -> dict[str, str]:
    attributes = Cursor(cursor.take(_read_header(cursor) - _HEADER), _BEFORE_ATTRIBUTES - _HEADER)
    names: dict[str, str] = {}
    while attributes.left >= _ATTRIBUTE and len(names) < len(_NAMES):
        code = attributes.number(4, 0, 0xFFFFFFFF)
        flags = attributes.number(1, 0, 0xFF)
        size = attributes.number(3, _ATTRIBUTE, attributes.left + _ATTRIBUTE - 3) - _ATTRIBUTE
        value = attributes.take(size)
        attributes.take(-size % 4)
        if code in _NAMES and not flags & _VENDOR:
            names.setdefault(_NAMES[code], value.decode("latin-1"))
    return names


diameter = MessageMatcher(
    "diameter",
    "Diameter, by the request that opens a connection",
    _read_request,
    begins=Fields(_read_header, longest=_HEADER),
    most=_LONGEST,
    options=(
        Option("origin_host", "patterns of the peer's host name", "*.example.com", "host"),
        Option("origin_realm", "patterns of its realm", "example.com", "host"),
    ),
    patterns=dict.fromkeys(_NAMES.values(), hosts),
    facts=tuple(_NAMES.values()),
    source="RFC 6733, sections 3, 4.1, 5.3.1, 6.3 and 6.4",
)
