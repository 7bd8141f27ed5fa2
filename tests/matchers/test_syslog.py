"""The `syslog` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.syslog import syslog

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# Recorded from logger of util-linux 2.38.1 (plain, with --octet-count, with --rfc3164), and from Python's SysLogHandler.
SAMPLES = (
    b'<13>1 2026-11-20T09:29:23.964534+00:00 vm root - - [timeQuality tzKnown="1" isSynced="0"] hello\n',
    b'95 <13>1 2026-11-20T09:29:23.968219+00:00 vm root - - [timeQuality tzKnown="1" isSynced="0"] hello',
    b"<13>Nov 20 09:29:23 vm root: hello\n",
    b"<14>started\x00",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(syslog.predicate({}), data)


class PriorityTests(SynchronousTestCase):
    """The priority, and the length that may come before it."""

    def test_match(self) -> None:
        """The end of the priority decides."""
        self.assertEqual(
            [said(sample) for sample in SAMPLES], [(MATCH, 4), (MATCH, 7), (MATCH, 4), (MATCH, 4)]
        )
        self.assertEqual(said(b"999999 <191>1"), (MATCH, 12))
        self.assertEqual(said(b"<0>1"), (MATCH, 3))
        self.assertEqual(said(b"<13"), (NEED_MORE, 3))

    def test_priorities(self) -> None:
        """They are 0 to 191, without leading zeros."""
        for number in range(192):
            self.assertIs(said(f"<{number}>".encode()).verdict, MATCH)
        for text, at in ((b"<192>", 4), (b"<200>", 4), (b"<00>", 3), (b"<>", 2), (b"<1 >", 3)):
            self.assertEqual(said(text), (NO, at))

    def test_lengths(self) -> None:
        """They have at most six digits, no leading zero, and one blank behind them."""
        for text, at in (
            (b"0 <13>", 1),
            (b"1234567 <13>", 7),
            (b"95<13>", 3),
            (b"95  <13>", 4),
            (b"95 13", 4),
        ):
            self.assertEqual(said(text), (NO, at))

    def test_neighbours(self) -> None:
        """XML, Git and tinc begin with the same bytes."""
        self.assertEqual(said(b"<?xml version='1.0'?>"), (NO, 2))
        self.assertEqual(said(b"<stream:stream"), (NO, 2))
        self.assertEqual(said(b"0046git-upload-pack /"), (NO, 1))
        self.assertEqual(said(b"0 node 17.7\n"), (NO, 1))

    @settings(max_examples=100, deadline=None)
    @given(
        st.text(alphabet="0123456789 <>", max_size=16).map(str.encode)
        | st.builds(lambda n, b: SAMPLES[1][:n] + b, st.integers(0, 9), st.binary(max_size=9))
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
