"""The `stomp` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.stomp import stomp

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The examples of STOMP 1.2, and a client of 1.0.
SAMPLES = (
    b"CONNECT\naccept-version:1.0,1.1,1.2\nhost:stomp.github.org\n\n\x00",
    b"STOMP\r\naccept-version:1.2\r\nhost:/\r\nheart-beat:0,0\r\n\r\n\x00",
    b"CONNECT\nlogin:guest\npasscode:guest\n\n\x00\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(stomp.predicate({}), data)


class CommandTests(SynchronousTestCase):
    """The first line decides."""

    def test_match(self) -> None:
        """Its LF is a match."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, sample.index(b"\n") + 1))
        self.assertEqual(said(b"CONNECT\r\n"), (MATCH, 9))

    def test_need_more(self) -> None:
        """Less is not enough."""
        for data in (b"CONNECT", b"STOMP\r", b"S"):
            self.assertEqual(said(data), (NEED_MORE, len(data)))

    def test_no(self) -> None:
        """The first other byte is a no, as with HTTP."""
        for data, at in (
            (b"CONNECT example.com:443 HTTP/1.1\r\n", 8),
            (b"CONNECTED\n", 8),
            (b"SEND\n", 2),
            (b"SSH-2.0-OpenSSH\r\n", 2),
            (b"STOMP\r\r", 7),
            (b"connect\n", 1),
            (b"\nCONNECT\n", 1),
        ):
            self.assertEqual(said(data), (NO, at), data)


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=12)
        | st.builds(lambda n, b: b"CONNECT\r\n"[:n] + b, st.integers(0, 9), st.binary(max_size=5))
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
