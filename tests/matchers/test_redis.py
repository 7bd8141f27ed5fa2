"""The `redis` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.redis import redis

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

CLI = b"*2\r\n$7\r\nCOMMAND\r\n$4\r\nDOCS\r\n"
# The first two are recorded from redis-cli 7.0.15, interactive and with a command; the others are what people type.
SAMPLES = (
    CLI,
    b"*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n",
    b"PING\r\n",
    b"get key\r\n",
    b"INFO server\r\n",
    b"AUTH secret\r\n",
    b"QUIT\r\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(redis.predicate({}), data)


class ArrayTests(SynchronousTestCase):
    """Commands as clients send them."""

    def test_match(self) -> None:
        """The headers of the array and of its first string are enough."""
        self.assertEqual(said(CLI), (MATCH, 8))
        self.assertEqual(said(b"*1234567\r\n$123456789\r\n"), (MATCH, 22))

    def test_need_more(self) -> None:
        """Every beginning of them is undecided."""
        self.assertEqual(said(CLI[:7]), (NEED_MORE, 7))

    def test_no(self) -> None:
        """The first byte that is off is a no."""
        for data, at in (
            (b"*\r\n", 2),
            (b"*-1\r\n", 2),
            (b"*2\n", 3),
            (b"*2\r\r", 4),
            (b"*2\r\n:1\r\n", 5),
            (b"*2\r\n$\r\n", 6),
            (b"*2\r\n$4\n", 7),
            (b"*2\r\n$4\r4", 8),
            (b"*12345678\r\n", 9),
            (b"*1\r\n$1234567890\r\n", 15),
        ):
            self.assertEqual(said(data), (NO, at))


class InlineTests(SynchronousTestCase):
    """Commands as people type them."""

    def test_match(self) -> None:
        """A line that begins with a command is a match at its end."""
        self.assertEqual(said(b"PING\r\n"), (MATCH, 6))
        self.assertEqual(said(b"ping\n"), (MATCH, 5))
        self.assertEqual(said(b"GET foo\r\nGET bar\r\n"), (MATCH, 9))
        self.assertEqual(said("set café 1\n".encode()), (MATCH, 12))

    def test_need_more(self) -> None:
        """A line without an end is undecided."""
        self.assertEqual(said(b"GET foo"), (NEED_MORE, 7))
        self.assertEqual(said(b"GET foo\r"), (NEED_MORE, 8))

    def test_other_words(self) -> None:
        """The byte with which the first word is no command any more is a no."""
        for data, at in (
            (b"EHLO example.com\r\n", 2),
            (b"GETX foo\r\n", 4),
            (b"PIN 1\r\n", 4),
            (b"PINGS", 5),
            (b"\r\n", 1),
            (b"\n", 1),
            (b" PING\r\n", 1),
            (b"SSH-2.0-x\r\n", 3),
            (b"POST / HTTP/1.1\r\n", 2),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_control_characters(self) -> None:
        """A control character in the line is a no, and so is a CR without LF."""
        for data, at in (
            (b"GET a\x00b\n", 6),
            (b"GET a\tb\n", 6),
            (b"GET a\x7f\n", 6),
            (b"GET a\rb\n", 7),
            (b"GET a\r\r\n", 7),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_request_lines(self) -> None:
        """The request lines of HTTP and its likes are a no when the line ends."""
        for line in (
            b"GET / HTTP/1.1",
            b"GET / HTTP/2.0 ",
            b"SUBSCRIBE sip:a@example.com SIP/2.0",
            b"INFO rtsp://example.com RTSP/1.0",
            b"COPY icap://example.com ICAP/1.0",
        ):
            self.assertEqual(said(line + b"\r\n"), (NO, len(line) + 1))
            self.assertEqual(said(line + b"\n"), (NO, len(line) + 1))
        self.assertEqual(said(b"GET HTTP/1.1x\n"), (MATCH, 14))

    def test_longest(self) -> None:
        """A line has at most 1024 bytes."""
        self.assertEqual(said(b"GET " + b"a" * 1019 + b"\n"), (MATCH, 1024))
        self.assertEqual(said(b"GET " + b"a" * 1020 + b"\n"), (NO, 1024))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=30)
        | st.text(alphabet="*$0123456789\r\n-", max_size=30).map(str.encode)
        | st.builds(
            lambda word, rest: word + rest,
            st.sampled_from([b"GET ", b"ping", b"*1\r\n$4", b"GET / HTTP/1.1"]),
            st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\n", b"\r"]),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
