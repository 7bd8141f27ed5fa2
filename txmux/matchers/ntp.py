"""Matches the request of an NTP or SNTP client.

That is a packet in client mode of version 1 to 4, with a stratum of at most 16 and a poll interval of at most 2^17
seconds; then nothing, extension fields (as NTS has them), or the sum of a symmetric key. Other values are not looked at:
clients that reveal little leave them zero, or fill them with random numbers.

Servers among themselves (modes 1, 2 and 5), and what ``ntpq`` asks (mode 6), are a *no*.
"""

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_CLIENT = 3
_VERSIONS = range(1, 5)
_FIRST = {leap << 6 | version << 3 | _CLIENT: version for leap in range(4) for version in _VERSIONS}
_MOST_STRATUM = 16
_MOST_POLL, _LEAST_POLL = 17, 0x100 - 7
_REST = 48 - 3
_MACS = frozenset({0, 4 + 16, 4 + 20})
"""Sizes of what may come at the end: nothing, or the number of a key and a sum with it."""
_SHORTEST_FIELD = 16


def _read_request(cursor: Cursor) -> dict[str, str]:
    version = _FIRST[cursor.one_of(_FIRST)]
    cursor.number(1, 0, _MOST_STRATUM)
    if _MOST_POLL < cursor.number(1, 0, 0xFF) < _LEAST_POLL:
        raise MalformedError
    cursor.take(_REST)
    while cursor.left not in _MACS:
        cursor.take(2)
        size = cursor.number(2, _SHORTEST_FIELD, 0xFFFF)
        if size % 4:
            raise MalformedError
        cursor.take(size - 4)
    return {"version": str(version)}


ntp = MessageMatcher(
    "ntp",
    "NTP and SNTP clients",
    _read_request,
    facts=("version",),
    source="RFC 5905, section 7.3; RFC 7822, section 3; RFC 4330, section 4",
)
