"""The `winbox` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.winbox import winbox

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

KEY = bytes.fromhex(
    "3f9a 04c1 77e2 5b80 d613 2ea5 48fb 900c 6d31 b7e8 1c52 af06 89d4 7e23 c55f 6a1b"
)


def authentication(name: bytes, parity: int = 1) -> bytes:
    """Make the message with which a user of this name logs in."""
    body = name + b"\0" + KEY + bytes([parity])
    return bytes([len(body), 6]) + body


# Made by hand as Margin Research's winbox.py sends it; the same to a router as an agent; and the request that is the
# first of WinBox according to that program, in clear and framed as pywinbox does.
SAMPLES = (
    authentication(b"admin"),
    authentication(b"admin+r", parity=0),
    bytes.fromhex(
        "2f01 002d 4d32 0500ff01 0600ff0901 0700ff0907 0100ff8802000d00000004000000"
        "0200ff88020000000000 0b000000"
    ),
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(winbox.predicate({}), data)


class AuthenticationTests(SynchronousTestCase):
    """The name of the user and a public key."""

    def test_match(self) -> None:
        """The parity of the key decides."""
        for sample in SAMPLES[:2]:
            self.assertEqual(said(sample), (MATCH, len(sample)))
            self.assertEqual(said(sample[:-1]), (NEED_MORE, len(sample) - 1))
        longest = authentication(b"n" * 221)
        self.assertEqual(said(longest), (MATCH, 257))

    def test_no(self) -> None:
        """The byte that breaks the message is a no."""
        good = SAMPLES[0]
        for data, at in (
            (b"\x0d", 1),
            (b"\x27\x05", 2),
            (b"\x22\x06", 2),
            (good[:4] + b"\x00", 5),
            (good[:7] + b"x", 8),
            (good[:-1] + b"\x02", len(good)),
        ):
            self.assertEqual(said(data), (NO, at))


class PlainTests(SynchronousTestCase):
    """Messages that are not encrypted."""

    def test_match(self) -> None:
        """The magic behind the lengths decides."""
        self.assertEqual(said(SAMPLES[2]), (MATCH, 6))
        self.assertEqual(said(bytes.fromhex("ff01 0120 4d32")), (MATCH, 6))

    def test_no(self) -> None:
        """Lengths that do not agree, and the lack of the magic, are a no."""
        for data, at in (
            ("6801 01", 3),
            ("6801 0067", 4),
            ("ff01 00fc", 4),
            ("6801 0066 4d33", 6),
        ):
            self.assertEqual(said(bytes.fromhex(data)), (NO, at))

    def test_neighbours(self) -> None:
        """Text, TLS, SOCKS, TDS and the like are a no at the second byte or soon after."""
        for data, at in (
            (b"SSH-2.0-x\r\n", 2),
            (b"GET / HTTP/1.1\r\n", 2),
            (bytes.fromhex("16 03 01 02 00 01"), 2),
            (bytes.fromhex("05 01 00"), 1),
            (bytes.fromhex("04 01 00 50 01 02 03 04 00"), 1),
            (bytes.fromhex("12 01 00 2f 00 00 01 00"), 4),
            (bytes.fromhex("80 01 00 01"), 4),
        ):
            self.assertEqual(said(data), (NO, at))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 50),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
