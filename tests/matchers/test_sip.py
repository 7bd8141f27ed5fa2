"""The `sip` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.sip import sip

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The examples of RFC 3261, sections 24.1 and 24.2, and of RFC 5626, section 9.1; one begins with a ping; the last is the
# beginning of what sipsak 0.9.8.1 sends.
SAMPLES = (
    b"REGISTER sip:registrar.biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP bobspc.biloxi.com:5060\r\n",
    b"INVITE sip:bob@biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP pc33.atlanta.com\r\n",
    b"\r\n\r\nOPTIONS sips:example.com;transport=tcp SIP/2.0\r\n",
    b"OPTIONS sip:alice@127.0.0.1:3827 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:39063;branch=z9hG4bK.1821e0f9;rport;alias\r\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(sip.predicate({}), data)


class RequestLineTests(SynchronousTestCase):
    """The first request line decides."""

    def test_match(self) -> None:
        """Its LF is a match, whatever follows, with up to two empty lines before it."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, sample.index(b"SIP/2.0\r\n") + 9))
        self.assertEqual(said(b"\r\nMESSAGE tel:+1-201-555 SIP/2.0\n"), (MATCH, 33))

    def test_need_more(self) -> None:
        """Every beginning of a line is undecided."""
        for data in (b"\r\n\r\n", b"INVITE sip:bob@biloxi.com SIP/2.0\r"):
            self.assertEqual(said(data), (NEED_MORE, len(data)))

    def test_no(self) -> None:
        """The first byte off the grammar is a no."""
        for line, at in (
            (b"OPTIONS / HTTP/1.1\r\n", 9),
            (b"OPTIONS * RTSP/1.0\r\n", 9),
            (b"OPTIONS rtsp://example.com RTSP/1.0\r\n", 28),
            (b"SUBSCRIBE /event HTTP/1.1\r\n", 11),
            (b"INVITE sip: SIP/2.0\r\n", 12),
            (b"INVITE bob SIP/2.0\r\n", 11),
            (b"INVITE sip:bob SIP/3.0\r\n", 20),
            (b"INVITE sip:bob SIP/2.0 \r\n", 23),
            (b"INVITE  sip:bob SIP/2.0\r\n", 8),
            (b"invite sip:bob SIP/2.0\r\n", 1),
            (b"\r\n\r\n\r\nINVITE", 5),
            (b"\r\n\r\n\x00\r\nQUIT\n", 5),
            (b"INFO\r\n", 5),
        ):
            self.assertEqual(said(line), (NO, at), line)

    def test_longest(self) -> None:
        """All of it ends within 8 KiB."""
        fits = b"INVITE sip:" + b"a" * (8192 - 21) + b" SIP/2.0\r\n"
        self.assertEqual(said(fits), (MATCH, 8192))
        self.assertIs(said(b"\r\n" + fits).verdict, NO)


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
