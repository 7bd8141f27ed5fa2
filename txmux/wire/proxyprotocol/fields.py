"""The fields of a version 2 header, as facts, and those that are passed to the next server."""

from collections.abc import Iterable, Iterator

from txmux.wire.proxyprotocol.decode import parse_ssl
from txmux.wire.proxyprotocol.header import (
    LARGEST_HEADER,
    LARGEST_UNIQUE_ID,
    ProxyHeader,
    SslClient,
    Tlv,
    TlvType,
)

CLOUD_NAMES = ("vpc_endpoint", "psc_connection", "link_id")
"""The fields that a header can have."""

_AWS = 0xEA
_GOOGLE = 0xE0
_AZURE = 0xEE
_ENDPOINT = b"\1"  # the subtype, in the first byte of the fields of AWS and of Azure


def _cloud_facts(header: ProxyHeader) -> Iterator[tuple[str, str]]:
    """Yield the fields of cloud providers by name; those of another length or subtype are left out.

    - Type ``EA`` of Amazon Web Services, subtype 1: the ID of the VPC endpoint, as text (Network Load Balancers guide, *Proxy
      protocol*).
    - Type ``E0`` of Google Cloud: the ID of the Private Service Connect connection, 8 bytes, big-endian (Virtual Private Cloud
      guide, *View consumer connection information*).
    - Type ``EE`` of Azure, subtype 1: the LINKID of the private endpoint, 4 bytes, little-endian (Private Link service overview,
      *Getting connection information using TCP proxy v2*).

    Returns:
        Names and values, as they are for the facts of a connection; text has one character a byte, as ISO 8859-1 decodes it.
    """
    aws = header.value_of(_AWS) or b""
    if aws[:1] == _ENDPOINT and aws[1:]:
        yield CLOUD_NAMES[0], aws[1:].decode("latin-1")
    google = header.value_of(_GOOGLE) or b""
    if len(google) == 8:
        yield CLOUD_NAMES[1], str(int.from_bytes(google, "big"))
    azure = header.value_of(_AZURE) or b""
    if azure[:1] == _ENDPOINT and len(azure) == 5:
        yield CLOUD_NAMES[2], str(int.from_bytes(azure[1:], "little"))


NAMES = {
    TlvType.AUTHORITY: "authority",
    TlvType.ALPN: "alpn",
    TlvType.UNIQUE_ID: "unique_id",
    TlvType.NETNS: "netns",
}
SSL_NAMES = {
    TlvType.SSL_VERSION: "ssl_version", TlvType.SSL_CIPHER: "ssl_cipher",
    TlvType.SSL_SIG_ALG: "ssl_sig_alg", TlvType.SSL_KEY_ALG: "ssl_key_alg",
    TlvType.SSL_GROUP: "ssl_group", TlvType.SSL_SIG_SCHEME: "ssl_sig_scheme",
    TlvType.SSL_CN: "ssl_cn",
}  # fmt: skip
_LONGEST_NAME = 255
_ROOM = LARGEST_HEADER - 16 - 36 - 7  # beside a header's start, IPv6 addresses and a checksum


def header_facts(header: ProxyHeader) -> dict[str, str]:
    """Return the fields of a header besides the addresses, by name.

    Returns:
        What there is of it, one character a byte, as ISO 8859-1 decodes it.

    Raises:
        InvalidHeader: The SSL field is cut short, or a field in it does not fit into it.
    """
    if not header.tlvs:
        return {}
    values = [(name, header.value_of(kind)) for kind, name in NAMES.items()]
    facts = {name: value.decode("latin-1") for name, value in values if value}
    facts.update(_cloud_facts(header))
    ssl = header.value_of(TlvType.SSL)
    if ssl is not None:
        info = parse_ssl(ssl)
        values = [(name, info.value_of(kind)) for kind, name in SSL_NAMES.items()]
        facts.update((name, value.decode("latin-1")) for name, value in values if value)
        if info.client & SslClient.SSL:
            facts["ssl_verified"] = "yes" if info.verified else "no"
    return facts


def authority(name: str | None) -> str | None:
    """Return a server name that a client has sent for its field; ``None`` if it is none of the DNS, which are printable ASCII."""
    is_name = name and len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable()
    return name if is_name else None


def passed_on_fields(own: Iterable[Tlv], earlier: Iterable[Tlv]) -> tuple[Tlv, ...]:
    """Choose the fields of a header for a connection that was itself announced by one.

    Args:
        own: What is known here; each goes before, and instead of, what came in of its type.
        earlier: What came in.

    Returns:
        As many as receivers take; what came in is left out first.
    """
    chosen = list(own)
    replaced = {tlv.type for tlv in chosen}
    chosen += (tlv for tlv in earlier if tlv.type not in replaced and _goes_on(tlv))
    fields: list[Tlv] = []
    room = _ROOM
    for tlv in chosen:
        size = 3 + len(tlv.value)
        if size <= room:
            room -= size
            fields.append(tlv)
    return tuple(fields)


def _goes_on(tlv: Tlv) -> bool:
    if tlv.type == TlvType.UNIQUE_ID:
        return len(tlv.value) <= LARGEST_UNIQUE_ID
    return tlv.type != TlvType.NOOP
