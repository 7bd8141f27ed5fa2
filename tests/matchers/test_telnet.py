"""The `telnet` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.telnet import telnet

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first bytes of Linux' telnet to port 23, and of PuTTY, as public captures have them.
SAMPLES = (
    bytes.fromhex("fffd03 fffb18 fffb1f fffb20 fffb21 fffb22 fffb27 fffd05 fffb23"),
    bytes.fromhex("fffb1f fffb20 fffb18 fffb27 fffd01 fffb03 fffd03"),
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(telnet.predicate({}), data)


class NegotiationTests(SynchronousTestCase):
    """The first command."""

    def test_match(self) -> None:
        """WILL or DO and an option are enough."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 3))
            self.assertEqual(said(sample[:2]), (NEED_MORE, 2))
        for option in (0x00, 0x31, 0x8A, 0x8C, 0xFF):
            self.assertEqual(said(bytes([0xFF, 0xFB, option])), (MATCH, 3))

    def test_no(self) -> None:
        """Other commands and unknown options are a no."""
        for data, at in (
            ("fefb", 1),
            ("fffc01", 2),
            ("fffe01", 2),
            ("fffa18", 2),
            ("fff4", 2),
            ("fffb32", 3),
            ("fffd8d", 3),
        ):
            self.assertEqual(said(bytes.fromhex(data)), (NO, at))

    def test_neighbours(self) -> None:
        """ZeroMQ, text in UTF-16 and MP3 are no Telnet."""
        self.assertEqual(said(bytes.fromhex("ff 0000000000000001 7f")), (NO, 2))
        self.assertEqual(said("1".encode("utf-16")), (NO, 2))
        self.assertEqual(said(bytes.fromhex("fffb9064")), (NO, 3))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 4),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
