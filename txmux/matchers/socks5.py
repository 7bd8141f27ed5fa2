"""Matches the greeting of a SOCKS 5 client.

That is 5, a number of methods and as many methods, no two of them alike. Methods are those that IANA has assigned
("SOCKS Methods") and the private ones from 80 to FE in hexadecimal; a client has at most twelve of them, which leaves
Cassandra and DNP3 to others at the second byte.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_MOST_METHODS = 12
_METHODS = frozenset({0, 1, 2, 3, 5, 6, 7, 8, 9, *range(0x80, 0xFF)})


def _read_greeting(cursor: Cursor) -> None:
    cursor.number(1, 5, 5)
    left = set(_METHODS)
    for _ in range(cursor.number(1, 1, _MOST_METHODS)):
        method = cursor.number(1, 0, 0xFE)
        if method not in left:
            raise MalformedError
        left.remove(method)


socks5 = PlainMatcher(
    "socks5",
    "SOCKS 5, by the methods that the client offers",
    Fields(_read_greeting, longest=2 + _MOST_METHODS),
    source="RFC 1928, section 3",
)
