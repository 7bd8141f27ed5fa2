"""PROXY protocol headers as frozen values; `encode` writes them, `decode` reads them."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """Compute the CRC32C (Castagnoli) checksum of some bytes: RFC 9260, Appendix A (RFC 4960, Appendix B).

    Returns:
        32 bits; ``0xE3069283`` for ``b"123456789"``.
    """
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder >> 8 ^ _TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF


LARGEST_HEADER = 4096
"""The most bytes of a version 2 header that txmux sends or takes, as nginx does."""

LARGEST_UNIQUE_ID = 128
"""The most bytes of a unique ID (PROXY protocol, section 2.2.5)."""


class InvalidHeader(MuxError):  # noqa: N818  # it says what is wrong better than "Error" would
    """Bytes that are no PROXY protocol header, or a header that cannot be put into bytes."""


class Command(enum.IntEnum):
    """The kind of connection: the sender's own, or a client's (PROXY protocol, section 2.2)."""

    LOCAL = 0
    """On the sender's own: a health check, say. The connection's real addresses count."""

    PROXY = 1
    """For a client, whose addresses are in the header."""


class TlvType(enum.IntEnum):
    """The types of type-length-value fields that the PROXY protocol registers (section 2.2)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    SSL_GROUP = 0x26
    SSL_SIG_SCHEME = 0x27
    SSL_CLIENT_CERT = 0x28
    NETNS = 0x30


class SslClient(enum.IntFlag):
    """What a client did, in an SSL field (PROXY protocol, section 2.2.6)."""

    SSL = 1
    """It connected over TLS."""

    CERT_CONN = 2
    """It presented a certificate on this connection."""

    CERT_SESS = 4
    """It presented a certificate at least once in the TLS session that this connection belongs to."""


def _without_zone(host: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    # A zone index is only valid on one host, and headers cannot carry it.
    return IPv6Address(host.packed) if isinstance(host, IPv6Address) and host.scope_id else host


def _is_port(_address: Address, attribute: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= 65_535:
        raise ValueError(f"'{attribute.name}' must be 0 to 65535: {value}")


@frozen
class Address:
    """One end of a TCP connection.

    Attributes:
        host: An IP address; the zone of an IPv6 address is dropped.
        port: 0 to 65535.
    """

    host: IPv4Address | IPv6Address = attrs.field(converter=_without_zone)
    port: int = attrs.field(validator=_is_port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else self.host
        return f"{host}:{self.port}"

    def as_ipv6(self) -> Address:
        """Return the same address as IPv6: an IPv4 one becomes v4-mapped (RFC 4291, section 2.5.5.2)."""
        if isinstance(self.host, IPv6Address):
            return self
        return Address(IPv6Address(bytes(10) + b"\xff\xff" + self.host.packed), self.port)


@frozen
class Tlv:
    """A type-length-value field.

    Attributes:
        type: 0 to 255, a `TlvType` or any other.
        value: Up to 65535 bytes.
    """

    type: int = attrs.field(validator=[attrs.validators.ge(0), attrs.validators.le(255)])
    value: bytes = attrs.field(validator=attrs.validators.max_len(65535))


def _value_of(tlvs: tuple[Tlv, ...], type_: int) -> bytes | None:
    return next((tlv.value for tlv in tlvs if tlv.type == type_), None)


@frozen
class SslInfo:
    """The content of an SSL field: the facts of the client's TLS (PROXY protocol, section 2.2.6).

    Attributes:
        client: What the client did.
        verify: 0 if the client presented a certificate and it was verified, anything else if not.
        tlvs: The sub-fields (`TlvType.SSL_VERSION` and those after it), in order.
    """

    client: SslClient
    verify: int = attrs.field(validator=[attrs.validators.ge(0), attrs.validators.lt(1 << 32)])
    tlvs: tuple[Tlv, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the client presented a certificate that the sender verified."""
        return bool(self.client & (SslClient.CERT_CONN | SslClient.CERT_SESS)) and self.verify == 0

    def value_of(self, type_: int) -> bytes | None:
        """Return the value of the first sub-field of a type, or ``None`` if there is none."""
        return _value_of(self.tlvs, type_)


@frozen
class ProxyHeader:
    """A PROXY protocol header of either version.

    Attributes:
        command: Whose connection it is.
        source: Where the client connected from; ``None`` when the connection's real addresses count
            (``LOCAL``, ``UNKNOWN``, or a family other than TCP over IP).
        destination: Where the client connected to; present if and only if `source` is, and of its family.
        tlvs: Further fields in order, which only version 2 can carry. Never a CRC32C: a checksum belongs
            to the bytes, so the encoder adds it and the decoder verifies and drops it.

    Raises:
        ValueError: The parts do not go together.
    """

    command: Command = Command.PROXY
    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[Tlv, ...] = ()

    def __attrs_post_init__(self) -> None:
        source, destination = self.source, self.destination
        if type(source and source.host) is not type(destination and destination.host):
            raise ValueError(
                "source and destination must be of one family, or both None; use Header.between()"
            )
        if self.command is Command.LOCAL and self.source is not None:
            raise ValueError("a LOCAL header has no addresses; leave them out")
        if self.tlvs and self.value_of(TlvType.CRC32C) is not None:
            raise ValueError("leave CRC32C to encode_v2(header, checksum=True)")

    @classmethod
    def between(
        cls, source: Address | None, destination: Address | None, tlvs: tuple[Tlv, ...] = ()
    ) -> ProxyHeader:
        """Make the header of a client's connection.

        Args:
            source: Where the client connected from, if it has an IP address.
            destination: Where it connected to, if that is an IP address.
            tlvs: Further fields.

        Returns:
            A header with both addresses: as they are if they are of one family, else both as IPv6;
            or a header without addresses if one is missing.
        """
        if source is None or destination is None:
            return cls(tlvs=tlvs)
        if source.host.version != destination.host.version:
            source, destination = source.as_ipv6(), destination.as_ipv6()
        return cls(Command.PROXY, source, destination, tlvs)

    def value_of(self, type_: int) -> bytes | None:
        """Return the value of the first field of a type, or ``None`` if there is none."""
        return _value_of(self.tlvs, type_)
