from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.proxyprotocol.test_codec_properties import ANY, TLVS
from tests.wire.proxyprotocol.vectors import IPV4, WITH_TLVS
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v2
from txmux.wire.proxyprotocol.fields import authority, header_facts, passed_on_fields
from txmux.wire.proxyprotocol.header import (
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
)

OURS = Tlv(TlvType.AUTHORITY, b"ours")
THEIRS = Tlv(TlvType.AUTHORITY, b"theirs")
OTHER = Tlv(0xE0, b"other")


class CarriedTests(SynchronousTestCase):
    def test_which(self) -> None:
        """What is known here goes first, and replaces what came in of its type; padding, and an ID that is longer than receivers take, are left out."""
        kept = Tlv(TlvType.UNIQUE_ID, bytes(128))
        for own, earlier, carried in (
            ([OURS], [OTHER, THEIRS], (OURS, OTHER)), ([], [OTHER, THEIRS], (OTHER, THEIRS)),
            ([], [Tlv(TlvType.NOOP, b"..."), OTHER], (OTHER,)),
            ([], [Tlv(TlvType.UNIQUE_ID, bytes(129)), kept], (kept,)),
        ):  # fmt: skip
            self.assertEqual(passed_on_fields(own, earlier), carried)

    def test_only_names_of_the_dns(self) -> None:
        for name, expected in (
            ("a.example", "a.example"), ("a" * 255, "a" * 255), ("a" * 256, None), ("a\x1b[2Jb.example", None),
            ("a\r\nb", None), ("\xe4.example", None), ("", None), (None, None),
        ):  # fmt: skip
            self.assertEqual(authority(name), expected)

    @given(ANY, ANY, TLVS, TLVS, st.integers(0, 5000))
    def test_fits(self, source: Any, destination: Any, own: Any, earlier: Any, size: int) -> None:
        """Whatever is known, and whatever came in, makes a header that can be written."""
        tlvs = passed_on_fields(own, (Tlv(0xE1, bytes(size)), *earlier))
        header = ProxyHeader.between(source, destination, tlvs)
        self.assertLessEqual(len(encode_v2(header, checksum=True)), 4096)

    def test_fields_have_names_where_they_are_known(self) -> None:
        """Fields that are empty or that nobody knows have no names. Only a certificate that was shown and verified counts as verified; a client without TLS has none to speak of; a field that is cut short is an error."""
        self.assertEqual(header_facts(IPV4), {})
        self.assertEqual(header_facts(WITH_TLVS), {"alpn": "h2", "authority": "example.com"})
        self.assertEqual(header_facts(ProxyHeader(tlvs=(Tlv(TlvType.ALPN, b""), OTHER))), {})
        for client, verify, verified in ((1, 0, "no"), (3, 1, "no"), (3, 0, "yes"), (5, 0, "yes")):
            self.assertEqual(self.ssl(client, verify), {"ssl_verified": verified})
        none = self.ssl(0, 0, Tlv(TlvType.SSL_VERSION, b"TLSv1.3"))
        self.assertEqual(none, {"ssl_version": "TLSv1.3"})
        self.assertRaises(InvalidHeader, header_facts, ProxyHeader(tlvs=(Tlv(TlvType.SSL, b"\1"),)))
        # The fields of the clouds have names and values, and those of another form or subtype none; all go on to the server as they came.
        clouds = (
            (Tlv(0xEA, b"\1vpce-08d2bf15fac5001c9"), "vpc_endpoint", "vpce-08d2bf15fac5001c9"),
            (Tlv(0xE0, bytes.fromhex("0123456789abcdef")), "psc_connection", "81985529216486895"),
            (Tlv(0xEE, bytes.fromhex("0178563412")), "link_id", "305419896"),
        )
        found = header_facts(ProxyHeader(tlvs=tuple(tlv for tlv, *_ in clouds)))
        self.assertEqual(found, {name: value for _, name, value in clouds})
        for wrong in (
            Tlv(0xEA, b"\2vpce-1"), Tlv(0xEA, b"\1"), Tlv(0xE0, bytes(7)), Tlv(0xEE, b"\1\0"),
        ):  # fmt: skip
            self.assertEqual(header_facts(ProxyHeader(tlvs=(wrong,))), {})
        came = tuple(Tlv(kind, value) for kind in (0xEA, 0xE0, 0xEE) for value in (b"\1x", b""))
        self.assertEqual(passed_on_fields((), came), came)

    def ssl(self, client: int, verify: int, *tlvs: Tlv) -> dict[str, str]:
        info = SslInfo(SslClient(client), verify, tlvs)
        return header_facts(ProxyHeader(tlvs=(encode_ssl(info),)))
