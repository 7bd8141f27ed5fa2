"""The `rsync` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.rsync import rsync

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# Of rsync 3.2.7, 3.1.3 and 2.6.9; the last is recorded from 3.5.0.
SAMPLES = (
    b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n",
    b"@RSYNCD: 31.0\n",
    b"@RSYNCD: 29\n",
    b"@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(rsync.predicate({}), data)


class GreetingTests(SynchronousTestCase):
    """The greeting of a client."""

    def test_match(self) -> None:
        """The first digit of the version decides."""
        for sample in SAMPLES:
            self.assertEqual(said(sample), (MATCH, 10))
        self.assertEqual(said(SAMPLES[0][:9]), (NEED_MORE, 9))

    def test_no(self) -> None:
        """The first other byte is a no; so is what only a server says."""
        self.assertEqual(said(b"@RSYNCD: OK\n"), (NO, 10))
        self.assertEqual(said(b"@ERROR: x\n"), (NO, 2))
        self.assertEqual(said(b"@time=1 :a PRIVMSG"), (NO, 2))
        self.assertEqual(said(b"@rsyncd: 31\n"), (NO, 2))

    @settings(max_examples=100, deadline=None)
    @given(st.builds(lambda n, b: SAMPLES[0][:n] + b, st.integers(0, 11), st.binary(max_size=9)))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
