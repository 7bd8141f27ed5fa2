"""The `jdwp` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.jdwp import jdwp

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# Recorded from jdb of OpenJDK 17.0.15.
SAMPLES: tuple[bytes, ...] = (b"JDWP-Handshake",)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(jdwp.predicate({}), data)


class HandshakeTests(SynchronousTestCase):
    """What begins a connection."""

    def test_match(self) -> None:
        """The whole handshake is a match, whatever follows."""
        self.assertEqual(said(b"JDWP-Handshake"), (MATCH, 14))
        self.assertEqual(said(b"JDWP-Handshake\x00\x00\x00\x0b"), (MATCH, 14))
        self.assertEqual(said(b"JDWP-Handshak"), (NEED_MORE, 13))

    def test_no(self) -> None:
        """The first other byte is a no."""
        self.assertEqual(said(b"jdwp-"), (NO, 1))
        self.assertEqual(said(b"JOIN #a\r\n"), (NO, 2))
        self.assertEqual(said(b"JDWP-handshake"), (NO, 6))


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
