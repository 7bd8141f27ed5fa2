"""The `any` matcher."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.any import any_client

PREDICATE = any_client.predicate({})


class AnyMatcherTests(SynchronousTestCase):
    """`any` takes whoever speaks."""

    @given(st.binary(min_size=1, max_size=20))
    def test_first_byte(self, data: bytes) -> None:
        """Whatever the first byte is, it is a match."""
        self.assertEqual(decided(PREDICATE, data), Decided(Verdict.MATCH, 1))

    def test_silence(self) -> None:
        """Silence is no match."""
        self.assertIs(PREDICATE(Peeked(b"")), Verdict.NEED_MORE)
