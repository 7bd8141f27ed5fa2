from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.matchers.asking import verdicts_of
from tests.support.examples import scaled
from txmux.matchers.payload import payload
from txmux.testing import Decided, check_datagrams, check_matcher

said = verdicts_of(payload)


VERDICTS = (
    # The last byte matches, whatever follows; the first that differs is a no.
    ("text=JDWP-", b"JDWP-Handshake", MATCH, 5), ("text=JDWP-", b"JDWP", NEED_MORE, 4),
    ("text=JDWP-", b"JDBC-Handshake", NO, 3), ("text=JDWP-", b"\x00", NO, 1),
    # Hex digits may be parted by blanks and colons.
    *(({"hex": text}, b"\x16\x03\x01\x00", MATCH, 3) for text in ("160301", "16 03 01", "16:03:01", "16 0301")),
    # Text is UTF-8 with \r \n \t \0 \\ and \xNN, which is one byte.
    ({"text": r"é\r\n\t\0\\\xfF\x0a|" + "\n"}, "é".encode() + b"\r\n\t\0\\\xff\n|\n", MATCH, 11),
    # The bytes before the offset may be any.
    ("text=SMB offset=4", b"....SMB.", MATCH, 7), ("text=SMB offset=4", b"....SMA.", NO, 7),
    ("text=SMB offset=4", b"....", NEED_MORE, 4),
    # Only the bits of the mask count, in the bytes looked for too.
    ("hex=1603ff mask=fffff0", b"\x16\x03\xf4", MATCH, 3), ("hex=1603ff mask=fffff0", b"\x16\x03\x04", NO, 3),
    ({"hex": "16 03 ff", "mask": "ff ff f0"}, b"\x17\x03\xf4", NO, 1),
)  # fmt: skip
UNUSABLE = (
    # One of text and hex is needed, not both, with at least one byte; the matcher's name is added by who reads the file.
    ("", "needs the bytes to look for; write text= or hex="), ("offset=1", "needs the bytes to look for"),
    ("text=a hex=61", "takes text= or hex=, not both; keep one"),
    ("text=", "text: is empty"), ({"hex": " "}, "hex: is empty"),
    # Bytes that are not UTF-8, as a command line may have them, have to be written by escapes.
    ("text=a\udcff", r"text: is not valid UTF-8; write such bytes as \xNN"),
    # What is no escape, no hex or no offset is shown.
    *((f"text={text}", f"text: {shown} ") for text, shown in ((r"a\qb", r"\q"), (r"\x1", r"\x"), ("\\", "\\"), (r"\é", r"\é"))),
    *(({"hex": text}, f"hex: {text!r} is not hex") for text in ("xy", "1", "1 6", "0x16")),
    ("hex=00 mask=f", "mask: 'f' is not hex"),
    *(
        ({"text": "a", "offset": text}, f"offset: {text!r} is not a whole")
        for text in ("-1", "65537", "1.5", "", "x", "\u0661", "1_0", " 1")
    ),
    # A mask has as many bytes as it masks.
    ("text=abc mask=ff", "mask: has 1 byte, but 3 bytes are compared; make it as long"),
    ("text=a mask=ffff", "mask: has 2 bytes, but 1 byte is compared; make it as long"),
)  # fmt: skip


class BytesTests(SynchronousTestCase):
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

    def test_offset(self) -> None:
        self.assertEqual(payload.predicate({"text": "abc", "offset": "65536"}).longest, 65539)
        check_datagrams(
            payload,
            samples=[b"xx\0\1", b"xx\0\1more"],
            not_samples=[b"xx\0", b"xx", b"xx\1\0"],
            options={"hex": "0001", "offset": "2"},
        )

    def test_contract(self) -> None:
        """It is kept, with all that the options show as examples."""
        check_matcher(
            payload, [(b"JDWP-Handshake", 5)], [(b"JDBC-Handshake", 3)], {"text": "JDWP-"}
        )
