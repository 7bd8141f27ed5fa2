"""The `irc` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.irc import irc

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first is recorded from Twisted 26.10's IRCClient; then what irssi and WeeChat, mIRC, and a web gateway send.
SAMPLES = (
    b"NICK alice\r\nUSER alice foo bar :None\r\n",
    b"CAP LS 302\r\nNICK alice\r\nUSER alice alice irc.example.com :Alice\r\n",
    b"CAP LS\r\n",
    b"PASS secret word\r\nNICK alice\r\nUSER alice 0 * :Alice A\r\n",
    b"USER alice 0 * :Alice A\r\nNICK alice\r\n",
    b"WEBIRC hunter2 gateway host.example.net 192.0.2.1 :secure\r\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(irc.predicate({}), data)


class LineTests(SynchronousTestCase):
    """The first line."""

    def test_match(self) -> None:
        """The byte that ends it decides, be it CR or LF."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, sample.index(b"\r") + 1))
            line = sample.partition(b"\r")[0]
            self.assertEqual(said(line), (NEED_MORE, len(line)))
            self.assertEqual(said(line + b"\n"), (MATCH, len(line) + 1))

    def test_case(self) -> None:
        """Commands are written in any case."""
        self.assertEqual(said(b"nick alice\n"), (MATCH, 11))
        self.assertEqual(said(b"Cap req :sasl\r\n"), (MATCH, 14))

    def test_no(self) -> None:
        """The first byte that no such line can have there is a no."""
        for line, at in (
            (b"CAPA\r\n", 4),
            (b"CAPABILITIES\r\n", 4),
            (b"CAP ACK :x\r\n", 5),
            (b"CAP LSX\r\n", 7),
            (b"NICK\r\n", 5),
            (b"NICK \r\n", 6),
            (b"NICK a b\r\n", 8),
            (b"NICK a\x00\r\n", 7),
            (b"USER alice\r\n", 11),
            (b"USER a b c\r\n", 11),
            (b"PASS\r\n", 5),
            (b"PING x\r\n", 2),
            (b"QUIT\r\n", 1),
            (b"POST / HTTP/1.1\r\n", 2),
            (b":alice NICK bob\r\n", 1),
        ):
            self.assertEqual(said(line), (NO, at), line)

    def test_longest(self) -> None:
        """A line has at most 512 bytes."""
        self.assertEqual(said(b"PASS " + b"x" * 506 + b"\n"), (MATCH, 512))
        self.assertIs(said(b"PASS " + b"x" * 600 + b"\n").verdict, NO)

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, b: sample[:n] + b,
            st.sampled_from(SAMPLES),
            st.integers(0, 40),
            st.binary(max_size=9) | st.sampled_from([b"\r\n", b" :", b" x"]),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
