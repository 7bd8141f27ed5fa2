"""Answers that wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.udp.buffered_replies import MOST_BUFFERED, BufferedReplies


class KeptTests(SynchronousTestCase):
    """`BufferedReplies`."""

    @given(st.lists(st.tuples(st.binary(min_size=1, max_size=9000), st.integers(0, 1500))))
    def test_bounded(self, batches: list[tuple[bytes, int]]) -> None:
        """All that comes is kept in its order, or counted as lost, and there are never more bytes than the limit."""
        kept = BufferedReplies()
        came: list[bytes] = []
        lost = 0
        for data, size in batches:
            parts = [data]
            if 0 < size < len(data):
                parts = [data[at : at + size] for at in range(0, len(data), size)]
            came += parts
            lost += kept.keep(memoryview(data), size)
        self.assertEqual(bool(kept), len(came) > lost)
        given = kept.take()
        self.assertEqual((len(given) + lost, len(kept.take())), (len(came), 0))
        self.assertLessEqual(sum(map(len, given)), MOST_BUFFERED)
        rest = iter(came)
        self.assertTrue(all(datagram in rest for datagram in given))
