"""Matches the first packet of an OpenVPN client, a reset of the control channel.

Over TCP its length in two bytes; then opcode and key ID, session ID, then without --tls-auth an empty list of acknowledged packets
and packet ID 0; with --tls-auth an HMAC and a replay-protection ID of 1 before that; with --tls-crypt that ID, a tag
of 32 bytes and the rest encrypted; with --tls-crypt-v2 also the wrapped client key of 290 to 1024 bytes, which ends with
its length, and the ID may count from 0x0f000000 (``EARLY_NEG_START``). Where its first two bytes are others, as of some
clients, that length decides, and over UDP always.

A session ID that looks like the counts of a query of DNS, which may have any number and length, is a *no*.

Over UDP a packet is a datagram. A client that gets no answer sends it again, with the next ID; of these eight are taken,
as the first ones may be lost.

Tunnels with a static key (--secret) have no handshake, and cannot be told from random bytes.
"""

from txmux.interfaces import Transport
from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher, ShortError
from txmux.wire.messages import Message

_V1, _V2, _V3 = (opcode << 3 for opcode in (1, 7, 10))
"""P_CONTROL_HARD_RESET_CLIENT_V1 to V3 in the high five bits, key ID 0 in the low three."""
_PLAIN = 1 + 8 + 1 + 4
_REPLAY = 4 + 4
_BEFORE_TIME = 1 + 8 + 4
_BY_HMAC = {_PLAIN + _REPLAY + size: size for size in (16, 20, 28, 32, 36, 48, 64)}
"""Lengths of resets with --tls-auth, and of their HMAC: MD5, SHA-1, SHA-224 to SHA-512; MD5-SHA1 has 36 bytes."""
_CRYPT = _PLAIN + _REPLAY + 32
_SHORTEST_V3 = _CRYPT + 32 + 256 + 2
_LONGEST_V3 = _CRYPT + 1024
_USUAL_STARTS = frozenset({0, 0x0F00})
_ATTEMPTS = 8
"""How often a client sends its reset, at the most, within the minute that it has (--hand-window)."""


def _read_stream(cursor: Cursor) -> None:
    _read_reset(cursor, cursor.number(2, _PLAIN, _LONGEST_V3), 1)


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    cursor.one_of({_V1, _V2, _V3})
    cursor.at = 0
    if cursor.left < _PLAIN:
        raise ShortError(_PLAIN)
    if cursor.left > _LONGEST_V3:
        raise MalformedError
    _read_reset(cursor, len(cursor.data), _ATTEMPTS, may_end_early=False)
    return {}


def _read_reset(cursor: Cursor, length: int, attempts: int, *, may_end_early: bool = True) -> None:
    if length >= _SHORTEST_V3:
        cursor.number(1, _V3, _V3)
        _read_session_id(cursor)
        start = cursor.number(2, 0, 0xFFFF)
        cursor.number(2, 0 if start else 1, attempts)
        if start not in _USUAL_STARTS or not may_end_early:
            cursor.take(length - _BEFORE_TIME - 2)
            cursor.number(2, length - _CRYPT, length - _CRYPT)
        return
    if length != _PLAIN and length not in _BY_HMAC:
        raise MalformedError
    if cursor.number(1, _V1, _V2) not in {_V1, _V2}:
        raise MalformedError
    _read_session_id(cursor)
    if length == _PLAIN:
        cursor.number(5, 0, 0)
        return
    if length == _CRYPT:
        try:
            cursor.number(4, 1, attempts)
        except MalformedError:
            pass  # the ID is where --tls-auth with SHA-256, of the same length, has its HMAC
        else:
            return
    cursor.take(_BY_HMAC[length])
    cursor.number(4, 1, attempts)
    cursor.take(4)
    cursor.number(5, 0, 0)


def _read_session_id(cursor: Cursor) -> None:
    session = cursor.take(8)
    if not any(session) or (session[3:6] == b"\0\1\0" and not session[7]):
        raise MalformedError


openvpn = PlainMatcher(
    "openvpn",
    "OpenVPN, by the reset that a client begins with",
    Fields(_read_stream, longest=2 + _LONGEST_V3),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source="OpenVPN's ssl_pkt.h, ssl_pkt.c (write_control_auth), tls_crypt.h and doc/tls-crypt-v2.txt",
)
