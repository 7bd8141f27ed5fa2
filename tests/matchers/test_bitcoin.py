"""The `bitcoin` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.bitcoin import bitcoin

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

MAGICS = tuple(map(bytes.fromhex, ("f9beb4d9", "0b110907", "1c163f28", "0a03cf40", "fabfb5da")))
VERSION = b"version" + bytes(5)
# The lengths, the checksum and the protocol version of a message as Bitcoin Core 25 sends it.
SAMPLES = tuple(
    magic + VERSION + bytes.fromhex("66000000 5f1a69d2 80110100 0904000000000000")
    for magic in MAGICS
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(bitcoin.predicate({}), data)


class VersionTests(SynchronousTestCase):
    """The magic of the network and the command."""

    def test_match(self) -> None:
        """They are enough, whatever the network."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 16))
        self.assertEqual(said(SAMPLES[0][:15]), (NEED_MORE, 15))

    def test_no(self) -> None:
        """Another magic, another command and other padding are a no at the byte that shows it."""
        self.assertEqual(said(b"\xf9\xbe\xb4\xd8" + VERSION), (NO, 4))
        self.assertEqual(said(b"\xf9\x11\x09\x07" + VERSION), (NO, 2))
        self.assertEqual(said(MAGICS[0] + b"verack"), (NO, 8))
        self.assertEqual(said(MAGICS[0] + b"version\0\0\0\0x"), (NO, 16))

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, b: sample[:n] + b,
            st.sampled_from(SAMPLES),
            st.integers(0, 17),
            st.binary(max_size=9),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
