"""Matches the bind with which an SMPP client, an ESME, begins: as receiver, transmitter or transceiver.

Length, command, status 0, the number in the sequence, and how the name of the system begins, which may be empty. A message
centre that connects to a client (outbind) is a *no*.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_HEADER = 16
_SHORTEST_BIND = _HEADER + 7
_LONGEST_BIND = 255
_BINDS = frozenset({1, 2, 9})
_NUL = 0


def _read_bind(cursor: Cursor) -> None:
    cursor.number(4, _SHORTEST_BIND, _LONGEST_BIND)
    if cursor.number(4, min(_BINDS), max(_BINDS)) not in _BINDS:
        raise MalformedError
    cursor.number(4, 0, 0)
    cursor.number(4, 1, 0x7FFF_FFFF)
    if cursor.number(1, _NUL, ord("~")) in range(_NUL + 1, ord("!")):
        raise MalformedError


smpp = PlainMatcher(
    "smpp",
    "SMPP 3.3 to 5.0, by the bind of a client",
    Fields(_read_bind, longest=_HEADER + 1),
    source="SMPP 3.4, sections 3.2 and 4.1; SMPP 5.0, section 4.1.1",
)
