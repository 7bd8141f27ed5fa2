from ipaddress import IPv6Address

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.proxyprotocol import vectors
from tests.wire.proxyprotocol.vectors import DESTINATION, DESTINATION6, SOURCE, SOURCE6, address
from txmux.wire.proxyprotocol.header import (
    Command,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
    crc32c,
)


class HeaderTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """IPv6 reads in brackets; a port has 16 bits; the zone of a link-local address means nothing to the receiver. Between two ends, addresses of one family are taken as they are, and else both are IPv6; if one is missing neither is told, and the fields stay."""
        self.assertEqual((str(SOURCE), str(SOURCE6)), ("192.168.0.1:56324", "[2001:db8::1]:56324"))
        for port in (-1, 65536):
            self.assertRaises(ValueError, address, "192.0.2.1", port)
        self.assertEqual(address("fe80::1%eth0", 1).host, IPv6Address("fe80::1"))
        self.assertEqual(address("192.0.2.1", 9).as_ipv6(), address("::ffff:192.0.2.1", 9))
        self.assertIs(SOURCE6.as_ipv6(), SOURCE6)
        mapped, other = address("::ffff:192.168.0.1", 56324), address("::ffff:192.168.0.11", 443)
        for ends, both in (
            ((SOURCE, DESTINATION), (SOURCE, DESTINATION)), ((SOURCE6, DESTINATION6), (SOURCE6, DESTINATION6)),
            ((SOURCE, DESTINATION6), (mapped, DESTINATION6)), ((SOURCE6, DESTINATION), (SOURCE6, other)),
        ):  # fmt: skip
            self.assertEqual(ProxyHeader.between(*ends), ProxyHeader(Command.PROXY, *both))
        tlvs = (Tlv(TlvType.ALPN, b"h2"),)
        for source, destination in ((None, DESTINATION), (SOURCE, None), (None, None)):
            self.assertEqual(ProxyHeader.between(source, destination, tlvs), ProxyHeader(tlvs=tlvs))

    def test_a_field_is_found_by_its_type_and_none_made_that_could_not_be_written(self) -> None:
        self.assertEqual(vectors.WITH_TLVS.value_of(TlvType.AUTHORITY), b"example.com")
        self.assertIsNone(vectors.WITH_TLVS.value_of(TlvType.UNIQUE_ID))
        self.assertEqual(ProxyHeader(tlvs=(Tlv(0xE0, b"a"), Tlv(0xE0, b"b"))).value_of(0xE0), b"a")
        info = SslInfo(SslClient.SSL, 0, (Tlv(TlvType.SSL_VERSION, b"TLSv1.3"),))
        self.assertEqual(info.value_of(TlvType.SSL_VERSION), b"TLSv1.3")
        self.assertIsNone(info.value_of(TlvType.SSL_CN))
        for parts in (
            {"source": SOURCE}, {"destination": DESTINATION}, {"source": SOURCE, "destination": DESTINATION6},
            {"command": Command.LOCAL, "source": SOURCE, "destination": DESTINATION},
            {"tlvs": (Tlv(TlvType.CRC32C, bytes(4)),)},
        ):  # fmt: skip
            with self.subTest(parts=parts):
                self.assertRaises(ValueError, ProxyHeader, **parts)
        # A field has one byte of type, and 65535 of value at most.
        for kind, value in ((-1, b""), (256, b""), (1, bytes(65536))):
            self.assertRaises(ValueError, Tlv, kind, value)

    def test_examples(self) -> None:
        """The check value that identifies it, those of RFC 3720, appendix B.4, and that of no bytes."""
        for data, value in (
            (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E), (b"", 0),
        ):  # fmt: skip
            self.assertEqual(crc32c(data), value, data)
