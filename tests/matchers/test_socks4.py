"""The `socks4` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.socks4 import socks4

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (
    # curl 7.88.1: --proxy socks4://, socks4a://, socks4a:// with a user name.
    b"\x04\x01\x1f\x90\xc0\x00\x02\x01\x00",
    b"\x04\x01\x1f\x90\x00\x00\x00\x01\x00192.0.2.1\x00",
    b"\x04\x01\x00P\x00\x00\x00\x01user\x00example.com\x00",
    # netcat-openbsd 1.219: -X 4.
    b"\x04\x01\x00\x16\xc0\x00\x02\x01\x00",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(socks4.predicate({}), data)


class RequestTests(SynchronousTestCase):
    """Version 4, and 4a."""

    def test_match(self) -> None:
        """The NUL behind the user ID decides, or the one behind the name of the host."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, len(sample)))
            self.assertEqual(said(sample + b"SSH-2.0-x\r\n"), (MATCH, len(sample)))
            self.assertEqual(said(sample[:-1]), (NEED_MORE, len(sample) - 1))

    def test_bind(self) -> None:
        """The other command is BIND."""
        self.assertEqual(said(b"\x04\x02\x04\x00\x00\x00\x00\x00\x00"), (MATCH, 9))

    def test_no(self) -> None:
        """The byte that breaks the request is a no."""
        for data, at in (
            (b"\x05\x01\x00", 1),
            (b"\x04\x00\x00\x00\x05", 2),
            (b"\x04\x03\x00\x50", 2),
            (b"\x04\x01\x00\x00", 4),
            (b"\x04\x01\x00\x50\x01\x02\x03\x04us\x01er\x00", 11),
            (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", 10),
            (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00", 11),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """A request of Cassandra's version 4 has flags where the command would be."""
        self.assertEqual(said(bytes.fromhex("04 00 00 00 05 00000000")), (NO, 2))

    def test_longest(self) -> None:
        """A request has at most 520 bytes."""
        start = b"\x04\x01\x00\x50\x01\x02\x03\x04"
        self.assertEqual(said(start + b"u" * 511 + b"\x00"), (MATCH, 520))
        self.assertEqual(said(start + b"u" * 600), (NO, 520))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 30),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
