"""Matches the CONNECT packet of an MQTT client.

It is recognised by its type, a remaining length in the fewest bytes, and the name and version of the protocol. The highest bit of
the version marks the bridges of Mosquitto (``lib/send_connect.c``).
"""

from txmux.interfaces import Option
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher
from txmux.wire.predicates import Pattern

_MORE, _LAST = rb"[\x80-\xff]", rb"[\x01-\x7f]"
_REMAINING_LENGTH = rb"(?:[\x0c-\x7f]|%b{1,3}%b)" % (_MORE, _LAST)
_PROTOCOL = rb"\x00(?:\x04MQTT[\x04\x05\x84]|\x06MQIsdp[\x03\x83])"
_LONGEST_CONNECT = 64 * 1024


def _read_connect(cursor: Cursor) -> dict[str, str]:
    """Read the client identifier of a CONNECT packet (OASIS MQTT 5.0, sections 3.1.2 and 3.1.3.1)."""
    cursor.number(1, 0x10, 0x10)
    length = _variable(cursor)
    end = cursor.at + length
    cursor.take(cursor.number(2, 4, 6))
    version = cursor.number(1, 3, 0xFF) & 0x7F
    flags = cursor.number(1, 0, 0xFF)
    if version > 3 and flags & 0x01:
        raise MalformedError
    cursor.number(2, 0, 0xFFFF)
    if version == 5:
        properties = _variable(cursor)
        if properties > end - cursor.at - 2:
            raise MalformedError
        cursor.take(properties)
    try:
        client_id = cursor.take(cursor.number(2, 0, end - cursor.at - 2)).decode()
    except UnicodeDecodeError:
        raise MalformedError from None
    if "\0" in client_id:
        raise MalformedError
    return {"client_id": client_id}


def _variable(cursor: Cursor) -> int:
    """Read a number of one to four bytes, the lowest seven bits first (OASIS MQTT 5.0, section 1.5.5)."""
    number = 0
    for shift in (0, 7, 14, 21):
        byte = cursor.number(1, 0 if shift == 0 else 1, 0xFF if shift < 21 else 0x7F)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return number


mqtt = MessageMatcher(
    "mqtt",
    "MQTT 3.1, 3.1.1 and 5.0, by the CONNECT packet",
    _read_connect,
    begins=Pattern(rb"\x10%b%b" % (_REMAINING_LENGTH, _PROTOCOL)),
    most=_LONGEST_CONNECT,
    options=(Option("client_id", "globs of the client identifier", "sensor-*,meter-*"),),
    facts=("client_id",),
    source="OASIS MQTT 5.0, sections 1.5.5 and 3.1; OASIS MQTT 3.1.1, section 3.1; IBM MQTT V3.1, section 3.1",
)
