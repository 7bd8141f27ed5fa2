"""The `x11` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.x11 import x11

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (
    # libX11 1.8.4 with libxcb 1.15 over TCP, with a cookie and without; the last is made by hand, of a big-endian machine.
    bytes.fromhex("6c00 0b00 0000 1200 1000 0000") + b"MIT-MAGIC-COOKIE-1\0\0" + bytes(range(16)),
    bytes.fromhex("6c00 0b00 0000 0000 0000 0000"),
    bytes.fromhex("4200 000b 0000 0000 0000 0000"),
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(x11.predicate({}), data)


class SetupTests(SynchronousTestCase):
    """Byte order and versions."""

    def test_match(self) -> None:
        """The minor version decides, in either byte order."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 6))
            self.assertEqual(said(sample[:5]), (NEED_MORE, 5))

    def test_unused(self) -> None:
        """The byte that is not used may have any value."""
        self.assertEqual(said(b"l\n\x0b\x00\x00\x00"), (MATCH, 6))

    def test_no(self) -> None:
        """Another byte order, another version, and a version in the other byte order are a no."""
        for data, at in (
            (b"L", 1),
            (b"l\x00\x00\x0b", 3),
            (b"l\x00\x0a", 3),
            (b"B\x00\x0b\x00", 3),
            (b"l\x00\x0b\x00\x01", 5),
            (b"B\x00\x00\x0b\x00\x01", 6),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """Text is no X11."""
        self.assertEqual(said(b"lkf2mztq5xyh3abc7nop4rstu6vwdegijlkq\0"), (NO, 3))
        self.assertEqual(said(b"BREW / HTTP/1.1\r\n"), (NO, 3))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 13),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
