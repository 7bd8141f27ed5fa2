"""The `tinc` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.tinc import tinc

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# The first is recorded from tinc 1.0.36; the others are made by hand as tinc's send_id writes them in 1.0 and 1.1, and
# cmd_join in 1.1.
SAMPLES = (
    b"0 here 17\n",
    b"0 office 17\n",
    b"0 branch_2 17.7\n",
    b"0 ?cNbMg3BWsfC0fQCSgZV7QfCIL7pYO1JtEnGc4l3GRpK 17.1\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(tinc.predicate({}), data)


class IdTests(SynchronousTestCase):
    """The line of the ID request."""

    def test_match(self) -> None:
        """The end of the line decides."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, len(sample)))
            self.assertEqual(said(sample + b"1 94 64 0 0 ABCDEF\n"), (MATCH, len(sample)))
            self.assertEqual(said(sample[:-1]), (NEED_MORE, len(sample) - 1))

    def test_no(self) -> None:
        """The byte that breaks the line is a no."""
        for data, at in (
            (b"1 a 17\n", 1),
            (b"00", 2),
            (b"0  17\n", 3),
            (b"0 a-b 17\n", 4),
            (b"0 ? 17\n", 4),
            (b"0 a 16\n", 6),
            (b"0 a 170\n", 7),
            (b"0 a 17.\n", 8),
            (b"0 a 17\r\n", 7),
        ):
            self.assertEqual(said(data), (NO, at))

    def test_neighbours(self) -> None:
        """LDAP, git and syslog with a digit in front are no tinc."""
        self.assertEqual(said(bytes.fromhex("30 20 02 01 01 60")), (NO, 3))
        self.assertEqual(said(b"0032git-upload-pack /project.git"), (NO, 2))
        self.assertEqual(said(b"0 <34>1 2003-10-11T22:14:15Z"), (NO, 3))

    def test_longest(self) -> None:
        """A line has at most 300 bytes."""
        self.assertEqual(said(b"0 " + b"a" * 294 + b" 17\n"), (MATCH, 300))
        self.assertEqual(said(b"0 " + b"a" * 295 + b" 17\n"), (NO, 297))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.builds(
            lambda sample, n, rest: sample[:n] + rest,
            st.sampled_from(SAMPLES),
            st.integers(0, 40),
            st.binary(max_size=12),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
