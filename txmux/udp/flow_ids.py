"""Reads from datagrams of QUIC and WireGuard the IDs that tell flows apart.

A QUIC client sends to the connection ID that its server has chosen, a WireGuard client to the index of its server. Both
are in clear in what the server says first, so a datagram from an unknown address that has one belongs to that flow
(RFC 9000, sections 5.1 and 9; "WireGuard: Next Generation Kernel Network Tunnel", section 5.4).

A tunnel of WireGuard whose flow has been forgotten opens a flow that no route takes, until its client begins again. One that hears
nothing does so by itself after 15 seconds (section 6.5 there). Only that first message says which server is meant, so it must not go
where the rest of the tunnel went.

An ID is written here with the letter of its protocol before it, so that those of two protocols are never taken for each other.
"""

from typing import Any

from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import Packet, may_open, read_long_header

QUIC, WIREGUARD = b"q", b"w"

_SHORTEST, _LONGEST = 8, 20  # bytes of a connection ID that cannot be guessed, and of any
_LONG = 0x80
WG_INITIATION, _WG_RESPONSE, _WG_DATA = b"\1\0\0\0", b"\2\0\0\0", b"\4\0\0\0"
_WG_INITIATION_SIZE, _WG_RESPONSE_SIZE, _WG_COOKIE_SIZE, _WG_LEAST_DATA = 148, 92, 64, 32
_WG_BLOCK = 16


def protocol_of(first: bytes) -> tuple[bytes, bytes] | None:
    """Return the letter of a flow's protocol by its first datagram, and the ID by which the client wants to be known.

    ``None`` is a protocol without IDs. A WireGuard client takes another one every two minutes, so there it is empty.
    """
    if first[:4] == WG_INITIATION and len(first) == _WG_INITIATION_SIZE:
        return WIREGUARD, b""
    if not may_open(first):
        return None
    try:
        return QUIC, read_long_header(first).source
    except MalformedError:
        return None


def may_have_id(protocol: bytes, first_byte: int) -> bool:
    """Rule out most answers without an ID for `server_id`, by their first byte."""
    return first_byte >= _LONG if protocol == QUIC else first_byte == _WG_RESPONSE[0]


def server_id(protocol: bytes, answer: bytes, own: bytes) -> bytes:
    """Return the ID that a server has chosen, if its answer has one; else nothing. `own` is what `protocol_of` returned."""
    if protocol == WIREGUARD:
        is_response = answer[:4] == _WG_RESPONSE and len(answer) == _WG_RESPONSE_SIZE
        return protocol + answer[4:8] if is_response else b""
    if not answer or not answer[0] & _LONG:
        return b""
    try:
        header = read_long_header(answer)
    except MalformedError:
        return b""
    is_handshake = header.version and header.kind not in {Packet.RETRY, Packet.ZERO_RTT}
    if not is_handshake or header.destination != own:
        return b""
    return protocol + header.source if _SHORTEST <= len(header.source) <= _LONGEST else b""


def id_asked(datagram: bytes) -> bytes | None:
    """Return the ID that a client's datagram is sent to; nothing if it has none.

    ``None`` is for a short header of QUIC, which does not contain the length of its ID; it begins at the second byte.
    """
    if datagram[0] & _LONG:
        try:
            return QUIC + read_long_header(datagram).destination
        except MalformedError:
            return b""
    if datagram.startswith(_WG_DATA) and len(datagram) >= _WG_LEAST_DATA:
        return WIREGUARD + datagram[4:8]
    return None


def continues_tunnel(datagram: bytes) -> bool:
    """Return whether a datagram may be of a tunnel that has begun before: data, or a cookie."""
    kind, size = datagram[:1], len(datagram)
    is_data = size >= _WG_LEAST_DATA and size % _WG_BLOCK == 0
    return (kind == b"\4" and is_data) or (kind == b"\3" and size == _WG_COOKIE_SIZE)


def begins_tunnel(data: Any, size: int) -> bool:
    """Return whether a tunnel begins with a datagram, or the first of several; see `txmux.udp.ancillary.read` for the size."""
    length = size if 0 < size < len(data) else len(data)
    return length == _WG_INITIATION_SIZE and data[0] == WG_INITIATION[0]
