"""The `rtsp` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, calls_in, decided, in_pieces
from txmux.interfaces import Verdict
from txmux.matchers.rtsp import rtsp

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first is recorded from curl 7.88.1; the others are the examples of RFC 2326, section 10.2, and RFC 7826, 13.1.
SAMPLES = (
    b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: curl/7.88.1\r\n\r\n",
    b"DESCRIBE rtsp://server.example.com/fizzle/foo RTSP/1.0\r\nCSeq: 312\r\n\r\n",
    b"OPTIONS rtsp://server.example.com RTSP/2.0\r\nCSeq: 1\r\nUser-Agent: PhonyClient/1.2\r\n\r\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(rtsp.predicate({}), data)


class RequestLineTests(SynchronousTestCase):
    """The first request line decides."""

    def test_match(self) -> None:
        """Its LF is a match, whatever follows."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, sample.index(b"\n") + 1))
        self.assertEqual(said(b"SET_PARAMETER rtsp://a/\xe9 RTSP/1.0\n\0"), (MATCH, 34))

    def test_need_more(self) -> None:
        """Every beginning of a line is undecided."""
        line = SAMPLES[1][: SAMPLES[1].index(b"\n")]
        self.assertEqual(said(line), (NEED_MORE, len(line)))

    def test_no(self) -> None:
        """The first byte off the grammar is a no."""
        for line, at in (
            (b"OPTIONS / HTTP/1.1\r\n", 11),
            (b"OPTIONS sip:a@example.com SIP/2.0\r\n", 27),
            (b"GET rtsp://a RTSP/1.0\r\n", 4),
            (b"PLAY  rtsp://a RTSP/1.0\r\n", 6),
            (b"PLAY rtsp://a RTSP/3.0\r\n", 20),
            (b"PLAY rtsp://a RTSP/1.1\r\n", 22),
            (b"PLAY rtsp://a RTSP/1.0 \r\n", 23),
            (b"PLAY rtsp://a\r\n", 14),
            (b"PLAY rtsp://a\x00 RTSP/1.0\r\n", 14),
            (b"play rtsp://a RTSP/1.0\r\n", 1),
            (b"POST / HTTP/1.1\r\n", 2),
            (b"\r\nPLAY", 1),
        ):
            self.assertEqual(said(line), (NO, at), line)

    def test_longest(self) -> None:
        """A line ends within 8 KiB."""
        fits = b"PLAY " + b"a" * (8192 - 16) + b" RTSP/1.0\r\n"
        self.assertEqual(said(fits), (MATCH, 8192))
        self.assertIs(said(b"PLAY " + b"a" * 9000).verdict, NO)


class CostTests(SynchronousTestCase):
    """Sending byte by byte is not a way to make txmux work."""

    def test_long_target(self) -> None:
        """A long line costs the same for each byte as a short one."""
        predicate = rtsp.predicate({})

        def cost(size: int) -> float:
            data = b"PLAY " + b"a" * size
            return calls_in(lambda: in_pieces(predicate, data, range(1, len(data)))) / size

        self.assertLess(cost(4000), 1.1 * cost(400))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=12)
        | st.builds(
            lambda sample, n, b: sample[:n] + b + sample[n + len(b) :],
            st.sampled_from(SAMPLES),
            st.integers(0, 60),
            st.binary(max_size=5),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
