"""The `amqp` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from txmux.interfaces import Verdict
from txmux.matchers.amqp import amqp

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# All headers there are, as the specifications have them: 0-9-1, 1.0 with SASL, plain and with TLS, 0-8, 0-9 and 0-10.
# The first is also what amqp-publish of rabbitmq-c 0.11.0 sends.
SAMPLES = (
    b"AMQP\x00\x00\x09\x01",
    b"AMQP\x03\x01\x00\x00",
    b"AMQP\x00\x01\x00\x00",
    b"AMQP\x02\x01\x00\x00",
    b"AMQP\x01\x01\x08\x00",
    b"AMQP\x01\x01\x00\x09",
    b"AMQP\x01\x01\x00\x0a",
)


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(amqp.predicate({}), data)


class HeaderTests(SynchronousTestCase):
    """The protocol header decides."""

    def test_match(self) -> None:
        """All eight bytes are needed, whatever follows."""
        for sample in SAMPLES:
            self.assertEqual(said(sample + b"\0\xff"), (MATCH, 8))
            self.assertEqual(said(sample[:7]), (NEED_MORE, 7))

    def test_no(self) -> None:
        """The first byte that no header has there is a no."""
        for data, at in (
            (b"AMQP\x04\x01\x00\x00", 5),
            (b"AMQP\x00\x02\x00\x00", 6),
            (b"AMQP\x00\x00\x00\x00", 7),
            (b"AMQP\x03\x00\x09\x01", 6),
            (b"AMQP\x00\x00\x09\x02", 8),
            (b"AMQP\x01\x01\x00\x08", 8),
            (b"amqp", 1),
            (b"AUTH secret\r\n", 2),
            (b"ACL LIST\r\n", 2),
        ):
            self.assertEqual(said(data), (NO, at), data)


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=12)
        | st.builds(lambda n, b: b"AMQP\x00\x00\x09\x01"[:n] + b, st.integers(0, 8), st.binary())
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
