"""Encodes PROXY protocol headers."""

import struct
from ipaddress import IPv4Address, IPv6Address

from txmux.wire.proxyprotocol.header import (
    LARGEST_HEADER,
    LARGEST_UNIQUE_ID,
    InvalidHeader,
    ProxyHeader,
    SslInfo,
    Tlv,
    TlvType,
    crc32c,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""How every version 2 header begins."""

_VERSION = 0x20
_UNSPEC = 0x00
_STREAM_BY_IP_VERSION = {4: 0x11, 6: 0x21}
_DATAGRAM_BY_IP_VERSION = {4: 0x12, 6: 0x22}


def encode_v1(header: ProxyHeader) -> bytes:
    """Write a header as the line of text of version 1 (PROXY protocol, section 2.1).

    Args:
        header: Its addresses are all that version 1 can say: fields are left out, and without addresses
            it is ``UNKNOWN``, ``LOCAL`` included.
    """
    source, destination = header.source, header.destination
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    return (
        f"PROXY TCP{source.host.version} {_text(source.host)} {_text(destination.host)}"
        f" {source.port} {destination.port}\r\n"
    ).encode("ascii")


def encode_v2(header: ProxyHeader, *, checksum: bool = False, datagrams: bool = False) -> bytes:
    """Write a header in the binary form of version 2 (PROXY protocol, section 2.2).

    Args:
        header: What to say.
        checksum: Whether to add a CRC32C, as the last field.
        datagrams: Whether it goes into a datagram of UDP.

    Raises:
        InvalidHeader: A field is larger than receivers take, or all of it is.
    """
    source, destination = header.source, header.destination
    family, addresses = _UNSPEC, b""
    if source is not None and destination is not None:
        families = _DATAGRAM_BY_IP_VERSION if datagrams else _STREAM_BY_IP_VERSION
        family = families[source.host.version]
        ports = struct.pack("!HH", source.port, destination.port)
        addresses = source.host.packed + destination.host.packed + ports
    if len(header.value_of(TlvType.UNIQUE_ID) or b"") > LARGEST_UNIQUE_ID:
        raise InvalidHeader(f"a unique ID has at most {LARGEST_UNIQUE_ID} bytes; use a shorter one")
    block = addresses + _encode_tlvs(header.tlvs)
    if checksum:
        block += _encode_tlvs((Tlv(TlvType.CRC32C, bytes(4)),))
    length = len(SIGNATURE) + 4 + len(block)
    if length > LARGEST_HEADER:
        raise InvalidHeader(
            f"the header would have {length} bytes, and receivers take {LARGEST_HEADER};"
            " leave out a field or shorten it"
        )
    start = SIGNATURE + struct.pack("!BBH", _VERSION | header.command, family, len(block))
    encoded = start + block
    return encoded[:-4] + crc32c(encoded).to_bytes(4, "big") if checksum else encoded


def encode_ssl(info: SslInfo) -> Tlv:
    """Write the facts of the client's TLS as a field (PROXY protocol, section 2.2.6)."""
    return Tlv(TlvType.SSL, struct.pack("!BI", info.client, info.verify) + _encode_tlvs(info.tlvs))


def _encode_tlvs(tlvs: tuple[Tlv, ...]) -> bytes:
    return b"".join(struct.pack("!BH", tlv.type, len(tlv.value)) + tlv.value for tlv in tlvs)


def _text(host: IPv4Address | IPv6Address) -> str:
    if isinstance(host, IPv6Address) and host.ipv4_mapped:
        # Section 2.1 allows hexadecimal groups only; newer Pythons write a dotted quad here.
        high, low = struct.unpack("!HH", host.packed[-4:])
        return f"::ffff:{high:x}:{low:x}"
    return str(host)
