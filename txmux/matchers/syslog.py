"""Matches the beginning of the first syslog message.

A message begins with ``<PRIVAL>``, a number from 0 to 191 without leading zeros. With octet counting, over TCP, its length and
a blank come before it: a number without leading zeros, here of at most six digits.
"""

import re

from txmux.interfaces import Transport
from txmux.wire import Cursor, MalformedError, Pattern, PlainMatcher
from txmux.wire.messages import Message

_COUNT = rb"[1-9][0-9]{0,5} "
_PRIORITY = rb"<(?:[0-9]|[1-9][0-9]|1[0-8][0-9]|19[01])>"

_IN_DATAGRAM = re.compile(_PRIORITY)


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    cursor.literal(b"<")
    cursor.take(2)
    if not _IN_DATAGRAM.match(cursor.data):
        raise MalformedError
    return {}


syslog = PlainMatcher(
    "syslog",
    "syslog; over TCP with octet counting or without",
    Pattern(rb"(?:%b)?%b" % (_COUNT, _PRIORITY)),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source="RFC 5424, section 6.2.1; RFC 5426, section 3.1; RFC 6587, section 3.4",
)
