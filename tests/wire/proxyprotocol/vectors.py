"""Headers and their bytes, made from the specification."""

from ipaddress import ip_address

from txmux.wire.proxyprotocol.header import Address, Command, ProxyHeader, Tlv, TlvType

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def address(host: str, port: int) -> Address:
    return Address(ip_address(host), port)


SOURCE = address("192.168.0.1", 56324)
DESTINATION = address("192.168.0.11", 443)
SOURCE6 = address("2001:db8::1", 56324)
DESTINATION6 = address("2001:db8::11", 443)
IPV4 = ProxyHeader.between(SOURCE, DESTINATION)
IPV6 = ProxyHeader.between(SOURCE6, DESTINATION6)
UNKNOWN = ProxyHeader()
LOCAL = ProxyHeader(Command.LOCAL)
WITH_TLVS = ProxyHeader.between(
    SOURCE, DESTINATION, (Tlv(TlvType.ALPN, b"h2"), Tlv(TlvType.AUTHORITY, b"example.com"))
)

V1 = {
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n": IPV4,
    b"PROXY TCP6 2001:db8::1 2001:db8::11 56324 443\r\n": IPV6,
    b"PROXY UNKNOWN\r\n": UNKNOWN,
}

V2 = {
    SIGNATURE + bytes.fromhex(rest): header
    for rest, header in (
        ("2111000cc0a80001c0a8000bdc0401bb", IPV4),
        ("2121002420010db800000000000000000000000120010db8000000000000000000000011dc0401bb", IPV6),
        ("2111001fc0a80001c0a8000bdc0401bb010002683202000b6578616d706c652e636f6d", WITH_TLVS),
        ("20000000", LOCAL),
        ("21000000", UNKNOWN),
    )
}

V2_WITH_CHECKSUM = SIGNATURE + bytes.fromhex("21110013c0a80001c0a8000bdc0401bb0300041c1ae9c6")
