"""Matches the first message of an LDAP client.

A SEQUENCE with definite length, short or long, that begins with the message's number, 1 to 2147483647, and continues
with the tag and the length of a request. A message has at most 10 MiB, which is what Active Directory takes.

Over UDP (CLDAP), by which Windows looks for a domain controller, it is a search that fills the datagram.
"""

from txmux.interfaces import Transport
from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher
from txmux.wire.ber import read_length
from txmux.wire.messages import Message

_SEQUENCE, _INTEGER, _SEARCH = 0x30, 0x02, 0x63
_REQUESTS = {
    0x60,  # bind
    0x42,  # unbind
    _SEARCH,
    0x66,  # modify
    0x68,  # add
    0x4A,  # delete
    0x6C,  # modify DN
    0x6E,  # compare
    0x50,  # abandon
    0x77,  # extended, as StartTLS
}
_SHORTEST_MESSAGE = 3 + 2
_LONGEST_MESSAGE = 10 << 20
_LONGEST_HEADER = 1 + 5 + 2 + 4 + 1 + 5


def _read_message(cursor: Cursor) -> None:
    end = _read_number(cursor, _LONGEST_MESSAGE)
    cursor.one_of(_REQUESTS)
    read_length(cursor, 0, end)


def _read_number(cursor: Cursor, longest: int) -> int:
    """Read up to the number of the message, and give where the message ends."""
    cursor.number(1, _SEQUENCE, _SEQUENCE)
    end = read_length(cursor, _SHORTEST_MESSAGE, longest) + cursor.at
    cursor.number(1, _INTEGER, _INTEGER)
    size = cursor.number(1, 1, 4)
    cursor.number(size, 1, (1 << 8 * size - 1) - 1)
    return end


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    if _read_number(cursor, len(cursor.data)) != len(cursor.data):
        raise MalformedError
    cursor.number(1, _SEARCH, _SEARCH)
    cursor.take(read_length(cursor, 0, len(cursor.data)))
    return {}


ldap = PlainMatcher(
    "ldap",
    "LDAP, by the beginning of the first request",
    Fields(_read_message, longest=_LONGEST_HEADER),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source="RFC 4511, sections 4.1.1 and 5.1; [MS-ADTS], section 6.3.3",
)
