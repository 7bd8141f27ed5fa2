"""The headers of QUIC packets that can be read without a key."""

import enum
from collections.abc import Iterator
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any

from txmux.classes import frozen
from txmux.wire.cursor import MalformedError

LEAST_DATAGRAM = 1200
"""Bytes of a datagram with an Initial packet, without which servers drop it (RFC 9000, section 14.1), or offer no other version (section 6.1)."""

LONG_HEADER = 0x80
"""The bit of the first byte that only packets with a long header have (RFC 8999, section 5.1)."""
LONGEST_ID = 20
"""Bytes of a connection ID in all known versions (RFC 9000, section 17.2)."""
SHORTEST_FIRST_ID = 8
"""Bytes of the connection ID that a client makes up for its first packet (RFC 9000, section 7.2)."""

_FIXED = 0x40
_LEAST_LONG = bytes([LONG_HEADER])
_two_bytes = Struct(">H").unpack_from
_four_bytes = Struct(">I").unpack_from
_eight_bytes = Struct(">Q").unpack_from


class UnacceptableError(Exception):
    """A QUIC client has made a packet that servers drop, or end the connection for."""


class Packet(enum.IntEnum):
    """The types of packets with a long header, as version 1 numbers them (RFC 9000, section 17.2)."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    RETRY = 3


@frozen
class Version:
    """What differs between the versions whose Initial packets can be read.

    Attributes:
        name: For users.
        salt: What the connection ID is mixed with to get the first secret.
        labels: What the key, the initialization vector and the key of the header are derived by.
        kinds: The types of packets, by their number on the wire.
    """

    name: str
    salt: bytes
    labels: tuple[bytes, bytes, bytes]
    kinds: tuple[Packet, Packet, Packet, Packet]


_V1_LABELS = (b"quic key", b"quic iv", b"quic hp")
_V1_KINDS = (Packet.INITIAL, Packet.ZERO_RTT, Packet.HANDSHAKE, Packet.RETRY)

VERSIONS = {
    # RFC 9001, section 5.2
    0x00000001: Version(
        "1", bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), _V1_LABELS, _V1_KINDS
    ),
    # RFC 9369, section 3
    0x6B3343CF: Version(
        "2",
        bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
        (b"quicv2 key", b"quicv2 iv", b"quicv2 hp"),
        (Packet.RETRY, Packet.INITIAL, Packet.ZERO_RTT, Packet.HANDSHAKE),
    ),
    # draft-ietf-quic-tls-29, section 5.2
    0xFF00001D: Version(
        "draft-29", bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"), _V1_LABELS, _V1_KINDS
    ),
}
"""The versions whose Initial packets can be read, by their number on the wire."""

_KNOWN = frozenset(tuple(number.to_bytes(4, "big")) for number in VERSIONS)
_NOT_FIRST = bytes({*range(256)} - {first for first, *_ in _KNOWN})


@frozen
class LongHeader:
    """The header of a packet of a handshake (RFC 8999, section 5.1; RFC 9000, section 17.2).

    Attributes:
        version: The number of the version; 0 is a packet of Version Negotiation.
        destination: The connection ID that the receiver knows it by.
        source: The connection ID by which it wants to be known.
        kind: What it is; ``None`` in a version that is not in `VERSIONS`.
        fixed: Whether the bit that is 1 in nearly all packets is 1 (RFC 9287).
        has_token: Whether it is an Initial packet with a token.
        number_at: Where the packet number begins; in a packet of unknown version, or one of type Retry, where its
            connection IDs end.
        end: Where the packet ends.
    """

    version: int
    destination: bytes
    source: bytes
    kind: Packet | None
    fixed: bool
    number_at: int
    end: int
    has_token: bool = False


def may_open(datagram: bytes) -> bool:
    """Rule out most datagrams that open no QUIC connection: they have no long header, or another version and too few bytes for an answer.

    Args:
        datagram: The first one of a flow.
    """
    if datagram[:1] < _LEAST_LONG:
        return False
    return len(datagram) >= LEAST_DATAGRAM or int.from_bytes(datagram[1:5], "big") in VERSIONS


def opens_connection(datagram: bytes) -> bool:
    """Return whether a client of QUIC may open a further connection with a datagram, if the connection ID that it is sent to is new.

    Packets of type 0-RTT may overtake the Initial packet that they follow, and have its connection ID.
    """
    if not may_open(datagram):
        return False
    try:
        header = read_long_header(datagram)
    except MalformedError:
        return False
    if not SHORTEST_FIRST_ID <= len(header.destination) <= LONGEST_ID:
        return False
    if header.kind is None:
        return header.version != 0 and header.fixed
    if header.kind is Packet.INITIAL:  # servers drop shorter datagrams (RFC 9000, section 14.1)
        return len(datagram) >= LEAST_DATAGRAM and (header.fixed or header.has_token)
    return header.kind is Packet.ZERO_RTT and header.fixed


def opens_first_connection(datagram: bytes) -> bool:
    """Return the same for a client that has spoken another protocol.

    The version has to be in `VERSIONS`: of others the type of a packet cannot be read, so a datagram of that protocol is more easily taken
    for one. But an Initial packet that servers drop opens one, too: a server that takes it would serve its name by that protocol's route.
    """
    return tuple(datagram[1:5]) in _KNOWN and any(
        header.kind in {Packet.INITIAL, Packet.ZERO_RTT} for _, header in long_headers(datagram)
    )


def has_known_version(data: memoryview, size: int) -> bool:
    """Rule out most datagrams of other protocols for `opens_first_connection`.

    Args:
        data: From the beginning of a buffer.
        size: Of each datagram; 0 if there is one.
    """
    # There may be many, of an encrypted protocol: they are looked at column by column.
    buffer: Any = data.obj
    end, step = len(data), size or len(data)
    if not buffer[1:end:step].translate(None, _NOT_FIRST):
        return False
    columns = (buffer[at:end:step] for at in range(1, 5))
    return not _KNOWN.isdisjoint(zip(*columns, strict=False))


def long_headers(datagram: bytes) -> Iterator[tuple[int, LongHeader]]:
    """Yield the packets with a long header with which a datagram begins, as far as they can be read, each after where it begins.

    The last one may be followed by padding, or by a packet with a short header.
    """
    at = 0
    while at < len(datagram) and datagram[at] & LONG_HEADER:
        try:
            header = read_long_header(datagram, at)
        except MalformedError:
            return
        yield at, header
        at = header.end


def read_long_header(data: bytes, at: int = 0) -> LongHeader:
    """Read the header of a packet that begins at some place of a datagram.

    Raises:
        MalformedError: There is none, or it is not there in full.
    """
    try:
        first = data[at]
        version = _four_bytes(data, at + 1)[0]
        source_at = at + 6 + data[at + 5]
        ids_end = source_at + 1 + data[source_at]
    except (IndexError, StructError) as error:
        raise MalformedError from error
    if not first & LONG_HEADER or ids_end > len(data):
        raise MalformedError
    destination, source = data[at + 6 : source_at], data[source_at + 1 : ids_end]
    fixed = bool(first & _FIXED)
    known_version = VERSIONS.get(version)
    if known_version is None:
        return LongHeader(version, destination, source, None, fixed, ids_end, len(data))
    if len(destination) > LONGEST_ID or len(source) > LONGEST_ID:
        raise MalformedError
    kind = known_version.kinds[first >> 4 & 3]
    if kind is Packet.RETRY:
        return LongHeader(version, destination, source, kind, fixed, ids_end, len(data))
    has_token = False
    number_at = ids_end
    if kind is Packet.INITIAL:
        size, number_at = varint(data, number_at)
        has_token = size > 0
        number_at += size
    length, number_at = varint(data, number_at)
    end = number_at + length
    if end > len(data):
        raise MalformedError
    return LongHeader(version, destination, source, kind, fixed, number_at, end, has_token)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of variable length (RFC 9000, section 16).

    Returns:
        The number, and where it ends.

    Raises:
        MalformedError: It is not there in full.
    """
    try:
        first = data[at]
        if first < 0x40:
            return first, at + 1
        if first < 0x80:
            return _two_bytes(data, at)[0] & 0x3FFF, at + 2
        if first < 0xC0:
            return _four_bytes(data, at)[0] & 0x3FFFFFFF, at + 4
        return _eight_bytes(data, at)[0] & 0x3FFFFFFFFFFFFFFF, at + 8
    except (IndexError, StructError) as error:
        raise MalformedError from error
