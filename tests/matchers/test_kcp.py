"""The `kcp` matcher."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of, datagram_verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Verdict
from txmux.matchers.kcp import kcp

verdict_of = datagram_verdicts_of(kcp)
facts_of = datagram_facts_of(kcp)


def segment(conv: int, command: int = 81, data: bytes = b"", fragment: int = 0) -> bytes:
    """Make a segment as ``ikcp_encode_seg`` does."""
    return (
        struct.pack("<IBBHIIII", conv, command, fragment, 128, 1717171717, 0, 0, len(data)) + data
    )


# Made by hand: data in two segments, a window probe, and what an answer to it says.
DATAGRAMS = (
    segment(0x11223344, data=b"hello", fragment=1) + segment(0x11223344, data=b"world"),
    segment(1, 83),
    segment(1, 82) + segment(1, 84),
)
# The command, the session and the lengths count.
MATCHED_DATAGRAMS = (segment(0, data=bytes(1376)),)
REFUSED_DATAGRAMS = (
    segment(1, 80),
    segment(1, 85),
    segment(1)[:-1],
    segment(1, data=b"abc")[:-1],
    segment(1, data=b"abc") + b"d",
    segment(1) + segment(2),
    segment(1, 82, b"abc"),
    segment(1, 82, fragment=1),
    segment(1) * 129,
    bytes(24),
)


class ContractTests(SynchronousTestCase):
    """Segments of one session."""

    def test_conv(self) -> None:
        """Sessions are told apart by their number."""
        self.assertIs(verdict_of(DATAGRAMS[0], conv="7,0x11223344"), Verdict.MATCH)
        self.assertIs(verdict_of(DATAGRAMS[0], conv="287454020"), Verdict.MATCH)
        self.assertIs(verdict_of(DATAGRAMS[1], conv="7,0x11223344"), Verdict.NO)
        self.assertIs(verdict_of(DATAGRAMS[1], conv="1"), Verdict.MATCH)

    def test_learnt(self) -> None:
        """The number is learnt."""
        self.assertEqual(facts_of(DATAGRAMS[0]), {"conv": "287454020"})

    def test_unusable(self) -> None:
        """What is not such a number is an error."""
        for text in ("", "-1", "4294967296", "0x", "0x123456789", "1,,2", "one"):
            error = self.assertRaises(OptionError, kcp.predicate, {"conv": text})
            self.assertIn("is not the number of a session", str(error))
