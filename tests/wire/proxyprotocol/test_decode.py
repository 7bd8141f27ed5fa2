from twisted.trial.unittest import SynchronousTestCase

from tests.wire.proxyprotocol import vectors
from tests.wire.proxyprotocol.vectors import IPV4, SIGNATURE, UNKNOWN, V2_WITH_CHECKSUM, address
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode
from txmux.wire.proxyprotocol.header import Command, InvalidHeader, ProxyHeader, Tlv, TlvType

IPV4_BLOCK = bytes.fromhex("c0a80001c0a8000bdc0401bb")


def v2(start: str, block: bytes = b"", length: int | None = None) -> bytes:
    """Make a version 2 header of bytes 13 and 14 in hexadecimal, and what follows its length."""
    size = len(block) if length is None else length
    return SIGNATURE + bytes.fromhex(start) + size.to_bytes(2, "big") + block


class AcceptedTests(SynchronousTestCase):
    vectors = (vectors.V1 | vectors.V2 | {V2_WITH_CHECKSUM: IPV4}).items()

    def test_a_header_is_read_and_what_follows_it_is_left_alone(self) -> None:
        for encoded, header in self.vectors:
            for payload in (b"", b"\n", b"PROXY", encoded):
                self.assertEqual(decode(encoded + payload), Decoded(header, len(encoded)))

    def test_forms_of_addresses(self) -> None:
        """IPv6 addresses need not be in their shortest form, and may end as HAProxy writes mapped ones."""
        for text, expected in (
            (b"2001:DB8:0:0:0:0:0:1", "2001:db8::1"), (b"0001:0002:0003:0004:0005:0006:0007::", "1:2:3:4:5:6:7:0"),
            (b"::ffff:192.0.2.1", "::ffff:192.0.2.1"), (b"::", "::"),
        ):  # fmt: skip
            line = b"PROXY TCP6 " + text + b" ::1 0 65535\r\n"
            header = ProxyHeader.between(address(expected, 0), address("::1", 65535))
            self.assertEqual(decode(line), Decoded(header, len(line)))
            for cut in range(len(line)):
                self.assertIsInstance(decode(line[:cut]), Incomplete)

    def test_whatever_stands_behind_unknown_is_ignored_up_to_the_end_of_the_line(self) -> None:
        for tail in (b" ", b" ::1 ::2 1 2", b"  \xff\0", b" " + b"f" * 91):
            line = b"PROXY UNKNOWN" + tail + b"\r\n"
            self.assertEqual(decode(line + b"\r\n"), Decoded(UNKNOWN, len(line)))
        self.assertEqual(len(line), 107)

    def test_addresses_that_do_not_count(self) -> None:
        """LOCAL, and families other than TCP over IP, are taken without addresses, and skipped whole."""
        for start, block in (
            ("20 00", b"junk that is no field"), ("20 11", IPV4_BLOCK), ("20 11", b"short"),
            ("21 00", b"junk that is no field"), ("21 01", b""), ("21 10", IPV4_BLOCK), ("21 12", IPV4_BLOCK),
            ("21 22", bytes(36)), ("21 31", b"/run/source".ljust(108, b"\0") + b"/run/destination".ljust(108, b"\0")),
            ("21 32", bytes(216)),
        ):  # fmt: skip
            with self.subTest(start=start, block=block):
                encoded = v2(start, block)
                header = ProxyHeader(Command.LOCAL if start.startswith("20") else Command.PROXY)
                self.assertEqual(decode(encoded + b"payload"), Decoded(header, len(encoded)))
                for cut in range(len(encoded)):
                    self.assertIsInstance(decode(encoded[:cut]), Incomplete)
        # Fields are kept all the same if they can be told.
        field = bytes.fromhex("010002") + b"h2"
        for start, addresses in (("20 00", 0), ("21 00", 0), ("21 12", 12), ("21 31", 216)):
            answer = decode(v2(start, bytes(addresses) + field))
            assert isinstance(answer, Decoded)
            self.assertEqual(answer.header.tlvs, (Tlv(TlvType.ALPN, b"h2"),))

    def test_a_header_of_4_096_bytes_is_taken(self) -> None:
        block = IPV4_BLOCK + bytes.fromhex("e00fe1") + bytes(4065)
        self.assertEqual(len(v2("21 11", block)), 4096)
        self.assertIsInstance(decode(v2("21 11", block)), Decoded)


class RefusedTests(SynchronousTestCase):
    """Bytes that are no header are refused at the first of them that rules one out."""

    def check(self, encoded: bytes, message: str) -> None:
        """Check that the last byte given, and no earlier one, is refused, whatever follows it."""
        with self.subTest(encoded=encoded):
            for cut in range(len(encoded)):
                self.assertIsInstance(decode(encoded[:cut]), Incomplete, encoded[:cut])
            for payload in (b"", b"\r\n", b" 0\r\n", bytes(5000)):
                self.assertRaisesRegex(InvalidHeader, message, decode, encoded + payload)

    def test_other_protocols_are_told_by_their_first_bytes(self) -> None:
        for encoded in (
            b"G", b"\x16", b"\0", b"p", b"PO", b"PROXY\t", b"PROXY  ", b"PROXY\r", b"PROXY U\r",
            b"PROXY t", b"PROXY TCP5", b"PROXY TCP44", b"PROXY UD", b"PROXY UNKNOWNS", b"\r\r",
            b"\r\n\r\n\r", SIGNATURE[:-1] + b"\r",
        ):  # fmt: skip
            self.check(encoded, "must begin with")

    def test_address_and_port_are_in_their_plain_form(self) -> None:
        for start, message in (
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", "source port"),
            (b"PROXY TCP6 :: ::1 80 ", "destination port"),
        ):
            for text in (b" ", b"00", b"01", b"65536", b"100000", b"-", b"+", b"a", b"\xb2"):
                self.check(start + text, f"the {message} must be 0 to 65535")
        for start, message in ((b"PROXY TCP4 ", "source"), (b"PROXY TCP4 1.2.3.4 ", "destination")):
            for text in (
                b" ", b".", b"1..", b"256", b"01", b"1.2.3.4.", b"1.2.3.256", b"1.2.3 ", b"1.2.3. ",
                b"1.2.3.4/", b"-", b":", b"a", b"\xb2", b"1.2.3.4\t",
            ):  # fmt: skip
                self.check(start + text, f"the {message} address must be an IPv4")
        for start, message in ((b"PROXY TCP6 ", "source"), (b"PROXY TCP6 :: ", "destination")):
            for text in (
                b" ", b"1.", b"g", b"12345", b": ", b":1", b":::", b"1::2::", b"1:2:3:4:5:6:7:8:",
                b"1:2:3:4:5:6:7:8.", b"1:2:3 ", b"1::2:3:4:5:6:7:", b"fe80::1%", b"::1/", b"[",
                b"::ffff:01.", b"::ffff:1.2.3.4.", b"::ffff:1.2.3 ",
            ):  # fmt: skip
                self.check(start + text, f"the {message} address must be an IPv6")

    def test_v1_end_of_line(self) -> None:
        """A line ends behind its last field, in CR LF, and is too long when CR cannot be one of its 107 bytes."""
        line = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443"
        for encoded, message in (
            (line + b" ", "must be the last"), (line + b"\n", "CR LF"), (line + b"\rX", "CR LF"),
            (line + b"\r\r", "CR LF"), (b"PROXY UNKNOWN\n", "CR LF"), (b"PROXY UNKNOWN tail\n", "CR LF"),
            (b"PROXY TCP4 1.2.3.4\r", "destination address is missing"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 80\r", "destination port is missing"),
            (b"PROXY TCP6 :: :: \r", "source port must be"), (b"PROXY UNKNOWN ".ljust(106, b"f"), "107 bytes"),
        ):  # fmt: skip
            self.check(encoded, message)

    def test_v2_start(self) -> None:
        """What the specification does not have is refused, and a length as soon as it is known."""
        for message, starts in {
            "byte 13": ("00", "11", "22", "2f", "31"),
            "address family": ("2140", "21f1", "2041"),
            "transport protocol": ("2113", "212f", "2003"),
            "at most 4096": ("2111 0ff1", "2111 10", "2000 ff"),
            "addresses do not fit": ("2111 000b", "2121 0023"),
        }.items():
            for start in starts:
                self.check(SIGNATURE + bytes.fromhex(start), message)

    def test_a_field_that_does_not_fit_is_refused_as_soon_as_that_is_known(self) -> None:
        self.check(v2("21 11", length=13), "longer than what holds it")
        for fields, length in (
            ("010003", 17), ("0101", 100), ("010002", 19), ("010002 6832 010002", 21),
        ):  # fmt: skip
            self.check(v2("21 11", IPV4_BLOCK + bytes.fromhex(fields), length), "longer than")

    def test_a_wrong_checksum_is_refused_wherever_the_damage_is(self) -> None:
        """One has four bytes, and is looked at in any header."""
        for at in range(16, len(V2_WITH_CHECKSUM)):
            if at in {28, 29, 30}:
                continue  # the checksum's type and length: another field, or one that overruns
            damaged = bytearray(V2_WITH_CHECKSUM)
            damaged[at] ^= 0x10
            self.check(bytes(damaged), "CRC32C is wrong")
        for field in ("030000", "0300021c1a", "0300051c1ae9c600"):
            self.check(v2("21 11", IPV4_BLOCK + bytes.fromhex(field)), "CRC32C is wrong")
        for start in ("20 00", "21 00"):
            self.check(v2(start, bytes.fromhex("03000400000000")), "CRC32C is wrong")
