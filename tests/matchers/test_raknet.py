"""The `raknet` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of
from txmux.matchers.raknet import raknet

facts_of = datagram_facts_of(raknet)
MAGIC = bytes.fromhex("00ffff00fefefefefdfdfdfd12345678")
GUID = bytes(range(8))
# Made by hand, as RakPeer.cpp does: pings, and the two requests to open a connection, the first with padding.
DATAGRAMS = (
    b"\1" + bytes.fromhex("000000000000a1b2") + MAGIC + GUID,
    b"\1" + bytes.fromhex("000000000000a1b2") + MAGIC,
    b"\2" + bytes.fromhex("000000000000a1b2") + MAGIC + GUID,
    b"\5" + MAGIC + b"\x0b" + bytes(1446),
    b"\7" + MAGIC + bytes.fromhex("04 80ffffec 4abc 05d4") + GUID,
)
# Each has the magic number in its place.
MATCHED_DATAGRAMS = (b"\5" + MAGIC + b"\6",)
REFUSED_DATAGRAMS = (
    DATAGRAMS[0][:-1],
    DATAGRAMS[0] + b"\0",
    b"\3" + DATAGRAMS[0][1:],
    b"\1" + MAGIC + bytes(16),
    DATAGRAMS[3][:100] + b"\1" + DATAGRAMS[3][101:],
    b"\5" + MAGIC,
    b"\6" + MAGIC + bytes(16),
    b"\7" + MAGIC + bytes(16),
    b"\x84\0\0\0\x40\0\x90\0\0\0\x09",
)


class ContractTests(SynchronousTestCase):
    """Offline messages."""

    def test_learnt(self) -> None:
        """The version of the protocol is learnt, where it is told."""
        self.assertEqual([facts_of(one) for one in DATAGRAMS[2:]], [{}, {"version": "11"}, {}])
