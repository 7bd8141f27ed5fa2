"""The `payload` matcher."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.support.examples import scaled
from txmux.errors import OptionError
from txmux.interfaces import Verdict
from txmux.matchers.payload import payload
from txmux.testing import Decided, check_datagrams, check_matcher

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

said = verdicts_of(payload)


class ContractTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """It is kept, with all that the options show as examples."""
        check_matcher(
            payload, [(b"JDWP-Handshake", 5)], [(b"JDBC-Handshake", 3)], {"text": "JDWP-"}
        )


class BytesTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        for data, options, expected in (
            # The last byte matches, whatever follows; the first that differs is a no.
            (b"JDWP-Handshake", {"text": "JDWP-"}, (MATCH, 5)),
            (b"JDWP", {"text": "JDWP-"}, (NEED_MORE, 4)),
            (b"JDBC-Handshake", {"text": "JDWP-"}, (NO, 3)), (b"\x00", {"text": "JDWP-"}, (NO, 1)),
            # Hex digits may be parted by blanks and colons.
            *(
                (b"\x16\x03\x01\x00", {"hex": text}, (MATCH, 3))
                for text in ("160301", "16 03 01", "16:03:01", "16 0301")
            ),
            # The bytes before the offset may be any.
            (b"....SMB.", {"text": "SMB", "offset": "4"}, (MATCH, 7)),
            (b"....SMA.", {"text": "SMB", "offset": "4"}, (NO, 7)),
            (b"....", {"text": "SMB", "offset": "4"}, (NEED_MORE, 4)),
            # Only the bits of the mask count, in the bytes looked for too.
            (b"\x16\x03\xf4", {"hex": "16 03 ff", "mask": "ff ff f0"}, (MATCH, 3)),
            (b"\x16\x03\x04", {"hex": "16 03 ff", "mask": "ff ff f0"}, (NO, 3)),
            (b"\x17\x03\xf4", {"hex": "16 03 ff", "mask": "ff ff f0"}, (NO, 1)),
        ):  # fmt: skip
            self.assertEqual(said(data, **options), expected, (data, options))

    def test_escapes(self) -> None:
        r"""Text is UTF-8 with \r \n \t \0 \\ and \xNN, which is one byte."""
        text = r"é\r\n\t\0\\\xfF\x0a|" + "\n"
        expected = "é".encode() + b"\r\n\t\0\\\xff\n|\n"
        self.assertEqual(said(expected, text=text), (MATCH, len(expected)))

    @settings(max_examples=scaled(50), deadline=None)
    @given(
        st.binary(min_size=1, max_size=6), st.integers(0, 6), st.binary(max_size=14),
        st.binary(min_size=6, max_size=6),
    )  # fmt: skip
    def test_any_bytes(self, value: bytes, offset: int, data: bytes, mask: bytes) -> None:
        """It matches what a comparison of the masked bytes says, however the sample is cut."""
        mask = mask[: len(value)]
        options = {"hex": value.hex(), "offset": str(offset), "mask": mask.hex()}
        there = data[offset : offset + len(value)]
        equal = [(a ^ b) & m == 0 for a, b, m in zip(there, value, mask, strict=False)]
        if False in equal:
            expected = Decided(NO, offset + equal.index(False) + 1)
        elif len(equal) == len(value):
            expected = Decided(MATCH, offset + len(value))
        else:
            expected = Decided(NEED_MORE, len(data))
        self.assertEqual(said(data, **options), expected)


class OptionTests(SynchronousTestCase):
    def refused(self, **options: str) -> str:
        return str(self.assertRaises(OptionError, payload.predicate, options))

    def test_text_or_hex(self) -> None:
        """One of text and hex is needed, not both; the matcher's name is added by who reads the file."""
        for options in ({}, {"offset": "1"}):
            self.assertEqual(
                self.refused(**options), "needs the bytes to look for; write text= or hex="
            )
        self.assertEqual(
            self.refused(text="a", hex="61"), "takes text= or hex=, not both; keep one"
        )

    def test_empty(self) -> None:
        """There has to be at least one byte."""
        self.assertIn("text: is empty", self.refused(text=""))
        self.assertIn("hex: is empty", self.refused(hex=" "))

    def test_not_text(self) -> None:
        """Bytes that are not UTF-8, as a command line may have them, have to be written by escapes."""
        self.assertEqual(
            self.refused(text="a\udcff"), r"text: is not valid UTF-8; write such bytes as \xNN"
        )

    def test_unknown_escape(self) -> None:
        """Any other backslash is an error that shows it."""
        for text, shown in ((r"a\qb", r"\q "), (r"\x1", r"\x "), ("\\", "\\ "), (r"\é", r"\é ")):
            self.assertIn(f"text: {shown}", self.refused(text=text))

    def test_hex_digits(self) -> None:
        """What is no hex is an error that shows it."""
        for text in ("xy", "1", "1 6", "0x16"):
            self.assertIn(f"hex: {text!r} is not hex", self.refused(hex=text))
        self.assertIn("mask: 'f' is not hex", self.refused(hex="00", mask="f"))

    def test_offset(self) -> None:
        """The offset is a whole number from 0 to 65536."""
        for text in ("-1", "65537", "1.5", "", "x", "\u0661", "1_0", " 1"):
            self.assertIn(f"offset: {text!r} is not a whole", self.refused(text="a", offset=text))
        self.assertEqual(payload.predicate({"text": "abc", "offset": "65536"}).longest, 65539)

    def test_mask_length(self) -> None:
        """A mask has as many bytes as it masks."""
        for text, mask, words in (
            ("abc", "ff", "has 1 byte, but 3 bytes are compared; make it as long"),
            ("a", "ffff", "has 2 bytes, but 1 byte is compared; make it as long"),
        ):
            self.assertEqual(self.refused(text=text, mask=mask), f"mask: {words}")


class DatagramTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """A datagram that ends before the bytes do is a no."""
        check_datagrams(
            payload,
            samples=[b"xx\0\1", b"xx\0\1more"],
            not_samples=[b"xx\0", b"xx", b"xx\1\0"],
            options={"hex": "0001", "offset": "2"},
        )
