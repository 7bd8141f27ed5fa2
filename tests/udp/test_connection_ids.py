"""The connection IDs of one client."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.udp.test_migration import FIRST, ID, SHORT, WG_FIRST, answer
from tests.wire.quic_builder import DESTINATION, SOURCE, V2, initial
from tests.wire.quic_vectors import RETRY_1, SERVER_1, SERVER_ID, VERSION_1
from txmux.udp.connection_ids import HEAD, ConnectionIds, destination_of


def ids_of(first: bytes = FIRST) -> ConnectionIds:
    """Make those of a client's first datagram."""
    made = ConnectionIds.from_first(first)
    assert made is not None
    return made


class ConnectionIdsTests(SynchronousTestCase):
    """What they are, and which datagrams have them."""

    def test_of(self) -> None:
        """They begin with the one that the client has made up; other protocols have none."""
        self.assertEqual(ids_of().known, (DESTINATION,))
        for other in (WG_FIRST, SHORT, b"", b"\xc0", b"\xc0\0\0\0\1\xff", b"GET /"):
            self.assertIsNone(ConnectionIds.from_first(other))

    def test_handshake(self) -> None:
        """The first one is sent to until the server has chosen another, and the client proves its address by that."""
        ids = ids_of()
        self.assertTrue(ids.take(FIRST[:HEAD]))
        self.assertIsNone(ids.current)
        self.assertFalse(ids.take(SHORT[:HEAD]))
        self.assertTrue(ids.learn(answer(kind=0)))
        self.assertFalse(ids.learn(answer()))
        self.assertTrue(ids.take(answer(SOURCE, destination=ID)[:HEAD]))
        self.assertEqual(ids.current, ID)
        self.assertTrue(ids.take(FIRST[:HEAD]))
        self.assertTrue(ids.take(SHORT[:HEAD]))
        self.assertFalse(ids.take(initial(b"\1", destination=bytes(8))[:HEAD]))
        self.assertFalse(ids.take(b""))

    def test_retry(self) -> None:
        """After a Retry the client sends to the ID in it, which is of the same connection (RFC 9000, section 17.2.5)."""
        ids = ids_of(VERSION_1)
        self.assertTrue(ids.learn(RETRY_1))
        again = initial(b"\1", destination=SERVER_ID, source=b"", token=b"token")
        self.assertTrue(ids.take(again[:HEAD]))
        later = SERVER_1.replace(SERVER_ID, b"anothers", 1)
        self.assertTrue(ids.learn(later))
        self.assertTrue(ids.take(b"\x41anothers" + bytes(30)))

    def test_same_id(self) -> None:
        """A server may go on with the ID that the client has made up."""
        ids = ids_of()
        self.assertTrue(ids.learn(answer(DESTINATION)))
        self.assertEqual(ids.known, (DESTINATION,))
        self.assertTrue(ids.take(b"\x41" + DESTINATION + bytes(30)))
        self.assertEqual(ids.current, DESTINATION)

    def test_lengths(self) -> None:
        """A server's ID may have any length up to 20 bytes, none at all too."""
        for length in range(21):
            ids = ids_of()
            chosen = bytes([length]) * length
            self.assertTrue(ids.learn(answer(chosen)))
            self.assertTrue(ids.take(answer(SOURCE, destination=chosen)[:HEAD]), length)
            self.assertTrue(ids.take((b"\x41" + chosen + bytes(30))[:HEAD]), length)
            self.assertEqual(ids.take((b"\x41" + b"another".ljust(20) * 2)[:HEAD]), not length)
            self.assertEqual(ids.read(memoryview(b"\x41" + chosen + b"x")), (0x41, chosen))

    def test_not_learnt(self) -> None:
        """What is not for this client, Version Negotiation, and short headers tell of none."""
        ids = ids_of()
        for packet in (
            answer(version=0),
            answer(kind=1),
            answer(destination=b"someone"),
            answer(bytes(21), version=0x1A2A3A4A),
            SHORT,
            b"\xc0",
            b"",
        ):
            self.assertFalse(ids.learn(packet))
        self.assertEqual((ids.known, ids.served), ((DESTINATION,), None))

    def test_nameless_client(self) -> None:
        """A client may have chosen an ID of no bytes for itself."""
        ids = ids_of(initial(b"\1", source=b""))
        self.assertTrue(ids.learn(answer(destination=b"")))

    def test_many(self) -> None:
        """A server that chooses again and again is remembered by the last few; the first ID stays."""
        ids = ids_of()
        for number in range(100):
            ids.learn(answer(b"%08d" % number))
        self.assertEqual(ids.known, (DESTINATION, b"00000097", b"00000098", b"00000099"))

    def test_alone(self) -> None:
        """Where no other connection is, whatever ID a short header has is one of these."""
        ids = ids_of()
        other = b"\x55" + b"whatever" + bytes(30)
        self.assertFalse(ids.take(SHORT, is_alone=True))
        ids.learn(answer())
        self.assertFalse(ids.take(other, is_alone=True))
        self.assertTrue(ids.take(SHORT))
        self.assertFalse(ids.take(other))
        self.assertTrue(ids.take(other, is_alone=True))
        self.assertEqual(ids.current, b"whatever")
        self.assertTrue(ids.take(other))
        self.assertTrue(ids.take(SHORT))

    def test_coalesced(self) -> None:
        """All packets in a datagram have one destination, so the first tells it."""
        datagram = answer(SOURCE, destination=ID, kind=0) + SHORT
        self.assertEqual(destination_of(datagram[:HEAD]), ID)
        self.assertEqual(destination_of(answer(destination=ID, version=V2)), ID)
        for head in (b"", b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\x08" + ID[:7], b"\xc0\0\0\0\1\xff" + ID):
            self.assertIsNone(destination_of(head))

    @given(st.binary(max_size=60))
    def test_any(self, datagram: bytes) -> None:
        """Any bytes can come from either side."""
        ids = ids_of()
        ids.learn(answer())
        ids.learn(datagram)
        ids.take(datagram[:HEAD])
        ids.take(datagram[:HEAD], is_alone=True)
        ConnectionIds.from_first(datagram)


class RecallTests(SynchronousTestCase):
    """What one process tells another."""

    def test_all(self) -> None:
        """The other one knows as much, at each step of the handshake."""
        ids = ids_of()
        steps = (
            lambda: ids.learn(answer()),
            lambda: ids.take(answer(SOURCE, destination=ID)[:HEAD]),
            lambda: ids.take(b"\x41whatever" + bytes(30), is_alone=True),
        )
        for step in steps:
            step()
            recalled = ConnectionIds.from_json(json.loads(json.dumps(ids.as_json())))
            self.assertEqual(recalled.as_json(), ids.as_json())
            self.assertFalse(recalled.learn(answer()))
            self.assertTrue(recalled.learn(answer(b"the next")))

    def test_senseless(self) -> None:
        """What makes no sense is refused."""
        reported = ids_of().as_json()
        for known in ([], ["xy"]):
            with self.assertRaises(ValueError):
                ConnectionIds.from_json({**reported, "known": known})
