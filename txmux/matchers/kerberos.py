"""Matches the first request of a Kerberos client, for a ticket from the KDC.

Over TCP the length, four bytes; and an AS-REQ or a TGS-REQ in DER: its tag and the sequence in it, whose lengths agree with
that in front, or that of the datagram, version 5, and the type of the message once more. Changes of a password (RFC 3244)
are a *no*.
"""

from txmux.interfaces import Transport
from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher
from txmux.wire.ber import read_length
from txmux.wire.messages import Message

_TYPES = {0x6A: 10, 0x6C: 12}
"""AS-REQ and TGS-REQ: their tags, and the types that they tell of themselves."""
_SEQUENCE = 0x30
_BEFORE_BODY = bytes.fromhex("a103 020105 a203 0201")
_SHORTEST, _LONGEST = 64, 1 << 20


def _read_stream(cursor: Cursor) -> None:
    _read_request(cursor, cursor.number(4, _SHORTEST, _LONGEST) + cursor.at)


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    _read_request(cursor, len(cursor.data))
    return {}


def _read_request(cursor: Cursor, end: int) -> None:
    message_type = _TYPES[cursor.one_of(_TYPES)]
    _read_length_up_to(cursor, end)
    cursor.number(1, _SEQUENCE, _SEQUENCE)
    _read_length_up_to(cursor, end)
    cursor.literal(_BEFORE_BODY)
    cursor.number(1, message_type, message_type)


def _read_length_up_to(cursor: Cursor, end: int) -> None:
    if read_length(cursor, 0, end) + cursor.at != end:
        raise MalformedError


kerberos = PlainMatcher(
    "kerberos",
    "Kerberos 5, by the first request to the KDC",
    Fields(_read_stream, longest=4 + 2 * (1 + 5) + len(_BEFORE_BODY) + 1),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source="RFC 4120, sections 5.4.1, 7.2.1 and 7.2.2",
)
