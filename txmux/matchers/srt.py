"""Matches the handshake with which an SRT caller begins, or one of two that meet.

A control packet, to no socket yet, whose body has the version of the handshake, 4 or 5, what kind it is, induction or the
wave of a rendezvous, and no cookie. UDT, from which SRT comes, begins the same. The stream that is asked for
(``streamid``) only comes later, with the server's cookie.
"""

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_HANDSHAKE = bytes.fromhex("8000 0000 00000000")
_WAVE, _INDUCTION = 0, 1
_ADDRESS = 16
_LEAST_MTU, _MOST_MTU = 76, 65_535


def _read_handshake(cursor: Cursor) -> dict[str, str]:
    cursor.literal(_HANDSHAKE)
    cursor.take(4)
    cursor.literal(bytes(4))
    cursor.number(4, 4, 5)
    cursor.take(2 + 2)  # encryption, and extensions or the type of UDT
    cursor.number(4, 0, 0x7FFFFFFF)
    cursor.number(4, _LEAST_MTU, _MOST_MTU)
    cursor.number(4, 1, 0x7FFFFFFF)
    kind = cursor.number(4, _WAVE, _INDUCTION)
    cursor.number(4, 1, 0xFFFFFFFF)
    cookie = cursor.number(4, 0, 0xFFFFFFFF)
    if kind == _INDUCTION and cookie:
        raise MalformedError
    cursor.take(_ADDRESS)
    cursor.end()
    return {}


srt = MessageMatcher(
    "srt",
    "SRT and UDT, by the first handshake",
    _read_handshake,
    source="draft-sharabayko-srt-01, sections 3.2.1 and 4.3; draft-gg-udt-03, section 4.2",
)
