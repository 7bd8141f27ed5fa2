"""The `iperf3` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.iperf3 import iperf3

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first is recorded from iperf 3.12, the others are made as it makes them.
SAMPLES: tuple[bytes, ...] = (
    b"7bf6iz6sdmpw42tk4idlacqpi7enezcmsxzr\x00",
    b"kzv4f7a3dmiq6qyb5jvxo2twd3pyqkz2hxlr\x00",
    b"2z7ouqrpjb4xe6m5wq3nqhyfd7ivkac3tsgl\x00\x09",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(iperf3.predicate({}), data)


class CookieTests(SynchronousTestCase):
    """What begins a connection."""

    def test_match(self) -> None:
        """A cookie with the NUL that ends it is a match."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 37))
            self.assertEqual(said(sample[:36]), (NEED_MORE, 36))

    def test_no(self) -> None:
        """The first byte that is not of the alphabet, a NUL too early or too late are a no."""
        cookie = SAMPLES[0][:36]
        for data, at in (
            (b"KZV4", 1),
            (b"1abc", 1),
            (b"ab8", 3),
            (cookie[:35] + b"\x00", 36),
            (cookie + b"a\x00", 37),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """Text protocols in lower case have a blank or the end of a line in time; X11 has a NUL."""
        self.assertEqual(said(b"get " + b"a" * 40), (NO, 4))
        self.assertEqual(said(b"ping\r\n"), (NO, 5))
        self.assertEqual(said(b"ruok"), (NEED_MORE, 4))
        self.assertEqual(said(b"l\x00\x0b\x00"), (NO, 2))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=40)
        | st.builds(
            lambda sample, n, tail: sample[:n] + tail,
            st.sampled_from(SAMPLES),
            st.integers(0, 60),
            st.binary(max_size=40),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
