"""The `http2` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from tests.wire.http2_builder import CURL, NODE
from txmux.interfaces import Verdict
from txmux.matchers.http2 import http2
from txmux.wire.http2_opening import PREFACE

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (CURL, NODE)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(http2.predicate({}), data)


class PrefaceTests(SynchronousTestCase):
    """The preface decides, and nothing that follows is waited for."""

    def test_match(self) -> None:
        """All 24 bytes are needed."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 24))
        self.assertEqual(said(PREFACE), (MATCH, 24))
        self.assertEqual(said(PREFACE[:23]), (NEED_MORE, 23))

    def test_no(self) -> None:
        """The first byte off the preface is a no."""
        for line, at in (
            (b"PROPFIND / HTTP/1.1\r\n", 3),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 3),
            (b"PRI * HTTP/1.1\r\n", 12),
            (b"POST / HTTP/1.1\r\n", 2),
            (b"GET / HTTP/1.1\r\n", 1),
        ):
            self.assertEqual(said(line), (NO, at), line)


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=30)
        | st.builds(lambda n, b: PREFACE[:n] + b, st.integers(0, 24), st.binary(max_size=9))
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
