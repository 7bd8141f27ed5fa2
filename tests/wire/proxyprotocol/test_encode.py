from twisted.trial.unittest import SynchronousTestCase

from tests.wire.proxyprotocol.vectors import (
    DESTINATION6,
    IPV4,
    LOCAL,
    SIGNATURE,
    SOURCE,
    V1,
    V2,
    V2_WITH_CHECKSUM,
    WITH_TLVS,
    address,
)
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import (
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
)


class EncodeV1Tests(SynchronousTestCase):
    def test_headers_are_written_as_the_specification_has_them(self) -> None:
        for encoded, header in V1.items():
            self.assertEqual(encode_v1(header), encoded)

    def test_mapped_addresses_are_hexadecimal(self) -> None:
        """A v4-mapped address is written in hexadecimal groups, which is all that the grammar has."""
        self.assertEqual(
            encode_v1(ProxyHeader.between(SOURCE, DESTINATION6)),
            b"PROXY TCP6 ::ffff:c0a8:1 2001:db8::11 56324 443\r\n",
        )

    def test_the_longest_line_has_the_104_bytes_of_the_specification(self) -> None:
        end = address("ffff:" * 7 + "ffff", 65535)
        self.assertEqual(len(encode_v1(ProxyHeader.between(end, end))), 104)

    def test_version_1_has_no_local_so_such_a_header_is_unknown(self) -> None:
        self.assertEqual(encode_v1(LOCAL), b"PROXY UNKNOWN\r\n")

    def test_version_1_has_no_place_for_further_fields(self) -> None:
        self.assertEqual(encode_v1(WITH_TLVS), encode_v1(IPV4))


class EncodeV2Tests(SynchronousTestCase):
    def test_headers_are_written_as_the_specification_has_them(self) -> None:
        for encoded, header in V2.items():
            self.assertEqual(encode_v2(header), encoded)

    def test_a_checksum_is_added_as_a_last_field_and_covers_the_whole_header(self) -> None:
        self.assertEqual(encode_v2(IPV4, checksum=True), V2_WITH_CHECKSUM)

    def test_where_no_addresses_are_told_the_fields_come_first(self) -> None:
        self.assertEqual(
            encode_v2(ProxyHeader(tlvs=(Tlv(TlvType.ALPN, b"h2"),))),
            SIGNATURE + bytes.fromhex("21000005 010002 6832"),
        )

    def test_a_header_has_at_most_4_096_bytes_so_that_receivers_take_it(self) -> None:
        room = 4096 - len(encode_v2(IPV4)) - 3
        largest = ProxyHeader.between(IPV4.source, IPV4.destination, (Tlv(0xE0, bytes(room)),))
        self.assertEqual(len(encode_v2(largest)), 4096)
        self.assertRaisesRegex(InvalidHeader, "4103 bytes", encode_v2, largest, checksum=True)

    def test_a_unique_id_has_at_most_128_bytes(self) -> None:
        encode_v2(ProxyHeader(tlvs=(Tlv(TlvType.UNIQUE_ID, bytes(128)),)))
        with self.assertRaisesRegex(InvalidHeader, "128 bytes"):
            encode_v2(ProxyHeader(tlvs=(Tlv(TlvType.UNIQUE_ID, bytes(129)),)))

    def test_encode_ssl_layout(self) -> None:
        """It has the client's flags, the result of the verification, and the sub-fields."""
        info = SslInfo(
            SslClient.SSL | SslClient.CERT_CONN, 18, (Tlv(TlvType.SSL_VERSION, b"TLSv1.3"),)
        )
        value = bytes.fromhex("03 00000012 210007") + b"TLSv1.3"
        self.assertEqual(encode_ssl(info), Tlv(TlvType.SSL, value))
