"""Matches the request of a RADIUS client.

The code of a request (access, accounting, status, disconnect or change of authorization), the length of the datagram,
and attributes that fill it, at least one.
"""

from txmux.wire.cursor import Cursor
from txmux.wire.messages import MessageMatcher

_REQUESTS = {
    1,  # access
    4,  # accounting
    12,  # status of the server
    40,  # disconnect
    43,  # change of authorization
}
_HEADER = 20
_LONGEST = 4096
_SHORTEST_ATTRIBUTE = 2
_MOST_ATTRIBUTES = 256
_USER_NAME = 1


def _read_request(cursor: Cursor) -> dict[str, str]:
    cursor.one_of(_REQUESTS)
    cursor.take(1)
    size = len(cursor.data)
    cursor.number(2, max(size, _HEADER + _SHORTEST_ATTRIBUTE), min(size, _LONGEST))
    cursor.take(_HEADER - cursor.at)
    names: dict[str, str] = {}
    for _ in range(_MOST_ATTRIBUTES):
        if not cursor.left:
            break
        kind = cursor.number(1, 1, 0xFF)
        value = cursor.take(cursor.number(1, _SHORTEST_ATTRIBUTE, 0xFF) - _SHORTEST_ATTRIBUTE)
        if kind == _USER_NAME:
            names.setdefault("user", value.decode("latin-1"))
    cursor.end()
    return names


radius = MessageMatcher(
    "radius",
    "RADIUS, requests of all kinds",
    _read_request,
    facts=("user",),
    source="RFC 2865, sections 3 and 5; RFC 2866, section 4; RFC 5997, section 4; RFC 5176, section 2.3",
)
