"""Matches the first packet of an OpenVPN client, a reset of the control channel.

Over TCP its length in two bytes; then opcode and key ID, session ID, then without --tls-auth an empty list of acknowledged packets
and packet ID 0; with --tls-auth an HMAC and a replay-protection ID of 1 before that; with --tls-crypt that ID, a tag
of 32 bytes and the rest encrypted; with --tls-crypt-v2 also the wrapped client key of 290 to 1024 bytes, and the ID
may count from 0x0f000000 (``EARLY_NEG_START``).

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
_BY_HMAC = {_PLAIN + _REPLAY + size: size for size in (16, 20, 28, 32, 36, 48, 64)}
"""Lengths of resets with --tls-auth, and of their HMAC: MD5, SHA-1, SHA-224 to SHA-512; MD5-SHA1 has 36 bytes."""
_CRYPT = _PLAIN + _REPLAY + 32
_SHORTEST_V3 = _CRYPT + 32 + 256 + 2
_LONGEST_V3 = _CRYPT + 1024
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
    _read_reset(cursor, len(cursor.data), _ATTEMPTS)
    return {}


def _read_reset(cursor: Cursor, length: int, attempts: int) -> None:
    if length >= _SHORTEST_V3:
        cursor.number(1, _V3, _V3)
        _read_session_id(cursor)
        _read_v3_packet_id(cursor, attempts)
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
    if not any(cursor.take(8)):
        raise MalformedError


def _read_v3_packet_id(cursor: Cursor, attempts: int) -> None:
    early_negotiation = cursor.number(1, 0, 0x0F)
    if early_negotiation not in {0, 0x0F}:
        raise MalformedError
    cursor.number(3, 0 if early_negotiation else 1, attempts)


openvpn = PlainMatcher(
    "openvpn",
    "OpenVPN, by the reset that a client begins with",
    Fields(_read_stream, longest=2 + max(_BY_HMAC)),
    transports=tuple(Transport),
    datagrams=Message(_read_datagram),
    source="OpenVPN's ssl_pkt.h, ssl_pkt.c (write_control_auth), tls_crypt.h and doc/tls-crypt-v2.txt",
)
