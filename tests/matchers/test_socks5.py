"""The `socks5` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.socks5 import socks5

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (
    # curl 7.88.1: --proxy socks5://, without and with a user name; netcat-openbsd 1.219: -X 5.
    b"\x05\x02\x00\x01",
    b"\x05\x03\x00\x01\x02",
    b"\x05\x01\x00",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(socks5.predicate({}), data)


class GreetingTests(SynchronousTestCase):
    """A number of methods, and the methods."""

    def test_match(self) -> None:
        """The last method decides, whatever follows it."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, len(sample)))
            self.assertEqual(said(sample + b"\x05\x01\x00"), (MATCH, len(sample)))
            self.assertEqual(said(sample[:-1]), (NEED_MORE, len(sample) - 1))

    def test_all_methods(self) -> None:
        """All assigned and private methods can be offered at once."""
        methods = bytes([0, 1, 2, 3, 5, 6, 7, 8, 9, *range(0x80, 0xFF)])
        self.assertEqual(said(b"\x05\x88" + methods), (MATCH, 138))

    def test_no(self) -> None:
        """No methods, too many, unknown ones and the same one again are a no."""
        for data, at in (
            (b"\x04\x01", 1),
            (b"\x05\x00", 2),
            (b"\x05\x89", 2),
            (b"\x05\x01\x04", 3),
            (b"\x05\x02\x00\x0a", 4),
            (b"\x05\x01\xff", 3),
            (b"\x05\x02\x00\x00", 4),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """Requests of Cassandra's version 5, with and without the flag of a beta version."""
        self.assertEqual(said(bytes.fromhex("05 00 0000 05 00000000")), (NO, 2))
        self.assertEqual(said(bytes.fromhex("05 10 0000 05 00000000")), (NO, 4))
        self.assertEqual(said(bytes.fromhex("05 10 0001 05 00000000")), (NO, 6))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 6),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
