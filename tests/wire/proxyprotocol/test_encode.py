from twisted.trial.unittest import SynchronousTestCase

from tests.wire.proxyprotocol import vectors
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import (
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
)


class EncodeTests(SynchronousTestCase):
    def test_v1_headers_are_written_as_the_specification_has_them(self) -> None:
        """A v4-mapped address is in hexadecimal groups, all that the grammar has; there is no LOCAL, and no place for fields."""
        for encoded, header in vectors.V1.items():
            self.assertEqual(encode_v1(header), encoded)
        mapped = encode_v1(ProxyHeader.between(vectors.SOURCE, vectors.DESTINATION6))
        self.assertEqual(mapped, b"PROXY TCP6 ::ffff:c0a8:1 2001:db8::11 56324 443\r\n")
        end = vectors.address("ffff:" * 7 + "ffff", 65535)  # the longest line of the specification
        self.assertEqual(len(encode_v1(ProxyHeader.between(end, end))), 104)
        self.assertEqual(encode_v1(vectors.LOCAL), b"PROXY UNKNOWN\r\n")
        self.assertEqual(encode_v1(vectors.WITH_TLVS), encode_v1(vectors.IPV4))

    def test_v2_headers_are_written_as_the_specification_has_them(self) -> None:
        for encoded, header in vectors.V2.items():
            self.assertEqual(encode_v2(header), encoded)
        # A checksum is the last field, and covers the whole header; without addresses, fields come first.
        self.assertEqual(encode_v2(vectors.IPV4, checksum=True), vectors.V2_WITH_CHECKSUM)
        fields = encode_v2(ProxyHeader(tlvs=(Tlv(TlvType.ALPN, b"h2"),)))
        self.assertEqual(fields, vectors.SIGNATURE + bytes.fromhex("21000005 010002 6832"))
        # A header has at most 4096 bytes, so that receivers take it, and a unique ID 128.
        room = 4096 - len(encode_v2(vectors.IPV4)) - 3
        largest = ProxyHeader.between(
            vectors.IPV4.source, vectors.IPV4.destination, (Tlv(0xE0, bytes(room)),)
        )
        self.assertEqual(len(encode_v2(largest)), 4096)
        self.assertRaisesRegex(InvalidHeader, "4103 bytes", encode_v2, largest, checksum=True)
        ids = [ProxyHeader(tlvs=(Tlv(TlvType.UNIQUE_ID, bytes(size)),)) for size in (128, 129)]
        encode_v2(ids[0])
        self.assertRaisesRegex(InvalidHeader, "128 bytes", encode_v2, ids[1])
        # It has the client's flags, the result of the verification, and the sub-fields.
        info = SslInfo(
            SslClient.SSL | SslClient.CERT_CONN, 18, (Tlv(TlvType.SSL_VERSION, b"TLSv1.3"),)
        )
        value = bytes.fromhex("03 00000012 210007") + b"TLSv1.3"
        self.assertEqual(encode_ssl(info), Tlv(TlvType.SSL, value))
