import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.udp.test_migration import FIRST, ID, SHORT, WG_FIRST, answer
from tests.wire.quic_builder import DESTINATION, SOURCE, V1, V2, initial
from tests.wire.quic_vectors import RETRY_1, SERVER_1, SERVER_ID, VERSION_1
from txmux.udp.connection_ids import HEAD, ConnectionIds, destination_of
from txmux.wire import codec


def ids_of(first: bytes = FIRST) -> ConnectionIds:
    made = ConnectionIds.from_first(first)
    assert made is not None
    return made


class ConnectionIdsTests(SynchronousTestCase):
    def test_begin_with_the_clients_choice_in_quic_alone(self) -> None:
        self.assertEqual(ids_of().known, (DESTINATION,))
        for other in (WG_FIRST, SHORT, b"", b"\xc0", b"\xc0\0\0\0\1\xff", b"GET /"):
            self.assertIsNone(ConnectionIds.from_first(other))
        datagram = answer(SOURCE, destination=ID, kind=0) + SHORT
        self.assertEqual(destination_of(datagram[:HEAD]), ID)
        self.assertEqual(destination_of(answer(destination=ID, version=V2)), ID)
        for head in (b"", b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\x08" + ID[:7], b"\xc0\0\0\0\1\xff" + ID):
            self.assertIsNone(destination_of(head))

    def test_servers_id_replaces_the_clients_and_proves_its_address(self) -> None:
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

    def test_same_id_in_another_version_is_of_another_connection(self) -> None:
        ids = ids_of()
        newer = initial(b"\1", version=V2)
        self.assertFalse(ids.take(newer[:HEAD]))
        self.assertTrue(ids.learn(answer()))
        self.assertFalse(ids.take(newer[:HEAD]))
        self.assertFalse(ids.learn(answer(version=0)))
        # The server has chosen another one (RFC 9368).
        self.assertFalse(ids.learn(answer(kind=3, version=V2)))
        for recalled in (ids, codec.read(ConnectionIds, json.loads(json.dumps(codec.write(ids))))):
            for version in (V1, V2):
                asked = answer(SOURCE, destination=ID, version=version)
                self.assertTrue(recalled.take(asked[:HEAD]))
            other = answer(SOURCE, destination=ID, version=0x1A2A3A4A)
            self.assertFalse(recalled.take(other[:HEAD]))
        older = codec.read(ConnectionIds, {"own": "", "known": [DESTINATION.hex()]})
        self.assertTrue(older.take(newer[:HEAD]))

    def test_id_of_a_retry_is_of_the_same_connection(self) -> None:
        ids = ids_of(VERSION_1)
        self.assertTrue(ids.learn(RETRY_1))
        again = initial(b"\1", destination=SERVER_ID, source=b"", token=b"token")
        self.assertTrue(ids.take(again[:HEAD]))
        self.assertTrue(ids.learn(SERVER_1.replace(SERVER_ID, b"anothers", 1)))
        self.assertTrue(ids.take(b"\x41anothers" + bytes(30)))
        ids = ids_of()  # server may keep the clients id
        self.assertTrue(ids.learn(answer(DESTINATION)))
        self.assertEqual(ids.known, (DESTINATION,))
        self.assertTrue(ids.take(b"\x41" + DESTINATION + bytes(30)))
        self.assertEqual(ids.current, DESTINATION)
        self.assertTrue(ids_of(initial(b"\1", source=b"")).learn(answer(destination=b"")))
        for length in range(21):  # servers id has any length up to 20
            ids = ids_of()
            chosen = bytes([length]) * length
            self.assertTrue(ids.learn(answer(chosen)))
            self.assertTrue(ids.take(answer(SOURCE, destination=chosen)[:HEAD]), length)
            self.assertTrue(ids.take((b"\x41" + chosen + bytes(30))[:HEAD]), length)
            self.assertEqual(ids.take((b"\x41" + b"another".ljust(20) * 2)[:HEAD]), not length)
            self.assertEqual(ids.read(memoryview(b"\x41" + chosen + b"x")), (0x41, chosen))

    def test_other_datagrams_of_the_server_have_no_id(self) -> None:
        ids = ids_of()
        for packet in (
            answer(version=0), answer(kind=1), answer(destination=b"someone"),
            answer(bytes(21), version=0x1A2A3A4A), SHORT, b"\xc0", b"",
        ):  # fmt: skip
            self.assertFalse(ids.learn(packet))
        self.assertEqual((ids.known, ids.served), ((DESTINATION,), None))
        ids = ids_of()  # remembers the first and the last few ids
        for number in range(100):
            ids.learn(answer(b"%08d" % number))
        self.assertEqual(ids.known, (DESTINATION, b"00000097", b"00000098", b"00000099"))

    def test_any_id_of_a_short_header_is_of_the_only_connection(self) -> None:
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

    @given(st.binary(max_size=60))
    def test_any_bytes_from_either_side(self, datagram: bytes) -> None:
        ids = ids_of()
        ids.learn(answer())
        ids.learn(datagram)
        ids.take(datagram[:HEAD])
        ids.take(datagram[:HEAD], is_alone=True)
        ConnectionIds.from_first(datagram)

    def test_round_trip_at_each_step_of_the_handshake(self) -> None:
        ids = ids_of()
        steps = (
            lambda: ids.learn(answer()),
            lambda: ids.take(answer(SOURCE, destination=ID)[:HEAD]),
            lambda: ids.take(b"\x41whatever" + bytes(30), is_alone=True),
        )
        for step in steps:
            step()
            recalled = codec.read(ConnectionIds, json.loads(json.dumps(codec.write(ids))))
            self.assertEqual(codec.write(recalled), codec.write(ids))
            self.assertFalse(recalled.learn(answer()))
            self.assertTrue(recalled.learn(answer(b"the next")))
        reported = codec.write(ids_of())  # senseless values are refused
        for known in ([], ["xy"]):
            self.assertRaises(ValueError, codec.read, ConnectionIds, {**reported, "known": known})
