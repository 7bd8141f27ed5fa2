"""Reads from datagrams of QUIC and WireGuard the IDs that tell flows apart, and QUIC's connections of one address.

A QUIC client sends to the connection ID that its server has chosen, a WireGuard client to the index of its server. Both
are in clear in what the server says first, so a datagram from an unknown address that has one belongs to that flow
(RFC 9000, sections 5.1 and 9; "WireGuard: Next Generation Kernel Network Tunnel", section 5.4). Until its server answers, a QUIC client sends to
an ID that it has made up. A server gives further IDs in encrypted frames: these are only seen in use.

A tunnel of WireGuard whose flow has been forgotten opens a flow that no route takes, until its client begins again. One that hears
nothing does so by itself after 15 seconds (section 6.5 there). Only that first message says which server is meant, so it must not go
where the rest of the tunnel went.

The functions write an ID with the letter of its protocol before it, so that those of two protocols are never taken for each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from struct import Struct
from typing import Any

import attrs
from attrs.validators import min_len

from txmux.classes import define
from txmux.wire.codec import HEX, each, optional, sent
from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import LONG_HEADER, LONGEST_ID, Packet, may_open, read_long_header

QUIC, WIREGUARD = b"q", b"w"

_SHORTEST = 8  # bytes of a connection ID that cannot be guessed
WG_INITIATION, _WG_RESPONSE, _WG_DATA = b"\1\0\0\0", b"\2\0\0\0", b"\4\0\0\0"
_WG_INITIATION_SIZE, _WG_RESPONSE_SIZE, _WG_COOKIE_SIZE, _WG_LEAST_DATA = 148, 92, 64, 32
_WG_BLOCK = 16


HEAD = 1 + 4 + 1 + LONGEST_ID  # first bytes of a datagram that may have its connection ID
_LEAST_LONG = bytes([LONG_HEADER])
_MOST_KNOWN = 4
_ID_AT = 6


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
    return first_byte >= LONG_HEADER if protocol == QUIC else first_byte == _WG_RESPONSE[0]


def server_id(protocol: bytes, answer: bytes, own: bytes) -> bytes:
    """Return the ID that a server has chosen, if its answer has one; else nothing. `own` is what `protocol_of` returned."""
    if protocol == WIREGUARD:
        is_response = answer[:4] == _WG_RESPONSE and len(answer) == _WG_RESPONSE_SIZE
        return protocol + answer[4:8] if is_response else b""
    if not answer or not answer[0] & LONG_HEADER:
        return b""
    try:
        header = read_long_header(answer)
    except MalformedError:
        return b""
    is_handshake = header.version and header.kind not in {Packet.RETRY, Packet.ZERO_RTT}
    if not is_handshake or header.destination != own:
        return b""
    return protocol + header.source if _SHORTEST <= len(header.source) <= LONGEST_ID else b""


def id_asked(datagram: bytes) -> bytes | None:
    """Return the ID that a client's datagram is sent to; nothing if it has none.

    ``None`` is for a short header of QUIC, which does not contain the length of its ID; it begins at the second byte.
    """
    if datagram[0] & LONG_HEADER:
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


@functools.lru_cache(maxsize=LONGEST_ID + 1)
def _reader(length: int) -> Callable[[Any], tuple[Any, ...]]:
    return Struct(f"=B{length}s").unpack_from


def destination_of(head: bytes) -> bytes | None:
    """Return the ID that a datagram with a long header is sent to; ``None`` if it is not all within its first `HEAD` bytes."""
    end = _ID_AT + head[_ID_AT - 1] if len(head) >= _ID_AT else len(head) + 1
    return head[_ID_AT:end] if end <= len(head) else None


def _version(head: bytes) -> bytes:
    return head[1:5]


@define(eq=False, weakref_slot=False)
class ConnectionIds:
    """The IDs of one connection. All packets in a datagram have the same (RFC 9000, section 12.2).

    Attributes:
        known: Those that the client sends to, as far as they are certain, the first one first.
        served: The last one that the server has chosen, if it has.
        versions: As on the wire: the one that it began in, and the one that the server answers in, if that is another. The same ID in a further
            version is another connection; empty for one that an older process began, and then any will do.
        current: The one of the last short header, or the last long one to `served`; ``None`` before. Who has one has heard
            the server's answer, so its address is no forged one.
        read: Reads the first byte and `current` of a datagram with a short header; another ID before there was one.
    """

    _own: bytes = sent(HEX)
    known: tuple[bytes, ...] = sent(
        each(HEX, some=slice(_MOST_KNOWN)), validator=min_len(1), on_setattr=attrs.setters.NO_OP
    )
    versions: tuple[bytes, ...] = sent(each(HEX, some=slice(2)), default=())
    served: bytes | None = sent(optional(HEX), default=None)
    current: bytes | None = sent(optional(HEX), default=None)
    read: Callable[[Any], tuple[Any, ...]] = attrs.field(default=_reader(0), init=False)

    @classmethod
    def from_first(cls, first: bytes) -> ConnectionIds | None:
        """Make those of a flow, by its first datagram; ``None`` if that is not one of QUIC, or has a short header."""
        if not may_open(first):
            return None
        try:
            header = read_long_header(first)
        except MalformedError:
            return None
        return cls(header.source, (header.destination,), (_version(first),))

    def learn(self, answer: bytes) -> bool:
        """Learn IDs from a datagram of the server; returns whether there is a new one."""
        if not answer or not answer[0] & LONG_HEADER:
            return False
        try:
            header = read_long_header(answer)
        except MalformedError:
            return False
        source = header.source
        has_id = header.version and header.kind is not Packet.ZERO_RTT and len(source) <= LONGEST_ID
        if not has_id or header.destination != self._own:
            return False
        if self.versions and self.versions[-1] != _version(answer):
            self.versions = tuple(dict.fromkeys((self.versions[0], _version(answer))))
        if source == self.served:
            return False
        self.served = source
        if source not in self.known:
            latest = self.known[1:][2 - _MOST_KNOWN :]
            self.known = (self.known[0], *latest, source)
        return True

    def speaks(self, head: bytes) -> bool:
        return not self.versions or _version(head) in self.versions

    def use(self, name: bytes) -> None:
        self.current = name
        self.read = _reader(len(name))

    def take(self, head: bytes, *, is_alone: bool = False) -> bool:
        """Record a datagram, if its first `HEAD` bytes are sent to one of these; return whether they are.

        If it can be of no other connection, the ID of a short header is one of these, too, once the client has used that of its server.
        """
        if head[:1] >= _LEAST_LONG:
            name = destination_of(head)
            if not self.speaks(head):
                return False
            if name is not None and name == self.served and self.current is None:
                self.current = name
            return name in self.known
        if self.served is None or not head:
            return False
        name = head[1 : 1 + len(self.served)]
        is_own = is_alone and self.current is not None
        if not is_own and name not in {self.served, self.current}:
            return False
        self.use(name)
        return True
