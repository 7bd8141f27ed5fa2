"""The `bittorrent` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.bittorrent import bittorrent

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The reserved bytes of libtorrent (extensions, DHT, fast) and of qBittorrent; hash and peer as BEP 3 and BEP 20 say.
SAMPLES = (
    b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05"
    + bytes.fromhex("dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c")
    + b"-qB4650-)1ZrSdGq9CxK",
    b"\x13BitTorrent protocol"
    + bytes(8)
    + bytes.fromhex("2b66980093bc11806fab50cb3cb41835b95a0362"),
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(bittorrent.predicate({}), data)


class HandshakeTests(SynchronousTestCase):
    """The first twenty bytes."""

    def test_match(self) -> None:
        """They are enough."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 20))
        self.assertEqual(said(SAMPLES[0][:19]), (NEED_MORE, 19))

    def test_no(self) -> None:
        """The first byte that differs is a no."""
        self.assertEqual(said(b"BitTorrent protocol"), (NO, 1))
        self.assertEqual(said(b"\x13\x02rest"), (NO, 2))
        self.assertEqual(said(b"\x13BitTorrent Protocol"), (NO, 13))

    @settings(max_examples=100, deadline=None)
    @given(st.builds(lambda n, b: SAMPLES[0][:n] + b, st.integers(0, 21), st.binary(max_size=9)))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
