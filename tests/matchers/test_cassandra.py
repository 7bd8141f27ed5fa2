"""The `cassandra` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.cassandra import cassandra

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

OPTIONS = b"\x04\x00\x00\x00\x05\x00\x00\x00\x00"
STARTUP = b"\x04\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0"

# Written after the specifications, with the versions that the DataStax drivers for Java and Python try first.
SAMPLES: tuple[bytes, ...] = (
    OPTIONS,
    STARTUP,
    b"\x05" + STARTUP[1:],
    b"\x05\x10" + OPTIONS[2:],
    b"\x03" + OPTIONS[1:],
    b"\x41" + STARTUP[1:],
    b"\x42" + OPTIONS[1:],  # recorded from the driver for Python, 3.25.0
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(cassandra.predicate({}), data)


class CassandraTests(SynchronousTestCase):
    """What begins a connection."""

    def test_match(self) -> None:
        """The header of an OPTIONS or STARTUP frame is a match, in every version."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 9))
        self.assertEqual(said(OPTIONS[:8]), (NEED_MORE, 8))

    def test_no(self) -> None:
        """The first field that is off is a no."""
        for data, at in (
            (b"\x02\x00\x00\x05", 1),
            (b"\x84" + OPTIONS[1:], 1),
            (b"\x04\x01" + STARTUP[2:], 2),
            (b"\x04\x00\xff\xff\x05", 3),
            (b"\x04\x00\x00\x00\x07\x00\x00\x00\x20", 5),
            (OPTIONS[:8] + b"\x01", 9),
            (STARTUP[:8] + b"\x05", 9),
            (STARTUP[:5] + b"\x00\x01\x00\x00", 7),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """RDP, SOCKS 4 and SOCKS 5 begin with the same bytes as versions 3, 4 and 5."""
        rdp = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00"
        self.assertEqual(said(rdp), (NO, 5))
        self.assertEqual(said(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"), (NO, 2))
        self.assertEqual(said(b"\x04\x02\x00\x50\x01\x00\x00\x00\x00"), (NO, 2))
        self.assertEqual(said(b"\x05\x01\x00"), (NO, 2))
        self.assertEqual(said(b"\x05\x02\x00\x02"), (NO, 2))
        self.assertEqual(said(b"BFP/1.0\r\n"), (NO, 2))


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
