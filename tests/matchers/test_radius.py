"""The `radius` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of
from txmux.matchers.radius import radius

facts_of = datagram_facts_of(radius)
# Recorded from radclient of FreeRADIUS 3.2.1: for access, accounting, and the status of the server.
DATAGRAMS = (
    bytes.fromhex(
        "011a002bdc119dadab8b32b0793553a961f5e0c40105626f62021230a0fb4281d1da318ece51e4c59de518"
    ),
    bytes.fromhex("045a002260440e8a8e212c12887af807305396120105626f622806000000012c0331"),
    bytes.fromhex("0c9e0026deaa6c965dcd8002ca5c58fbed11c4515012cab3ed99d8e567855d6ff07adb1e6ac3"),
)
HEAD = DATAGRAMS[0][4:20]
# The code, the length and the lengths of all attributes count.
MATCHED_DATAGRAMS = (
    *(bytes([code, 7, 0, 24]) + HEAD + b"\x04\x04ab" for code in (40, 43)),
    bytes([1, 7, 0, 22]) + HEAD + b"\x01\x02",
)
REFUSED_DATAGRAMS = (
    *(bytes([code]) + DATAGRAMS[0][1:] for code in (0, 2, 3, 5, 11, 13, 41, 44)),
    DATAGRAMS[0][:-1],
    DATAGRAMS[0] + b"\0",
    bytes([1, 7, 0, 20]) + HEAD,
    bytes([1, 7, 2, 22]) + HEAD + b"\x01\x02" * 257,
    bytes([1, 7, 0, 23]) + HEAD + b"\x01\x02\x01",
    bytes([1, 7, 0, 22]) + HEAD + b"\x01\x01",
    bytes([1, 7, 0, 22]) + HEAD + b"\x00\x02",
    bytes([1, 7, 0, 24]) + HEAD + b"\x01\x05ab",
)


class ContractTests(SynchronousTestCase):
    """Requests, whose attributes fill the datagram."""

    def test_learnt(self) -> None:
        """The name of the user is learnt, if it is there."""
        self.assertEqual(
            [facts_of(one) for one in DATAGRAMS], [{"user": "bob"}, {"user": "bob"}, {}]
        )
