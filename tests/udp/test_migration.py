import json
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import quic_vectors
from tests.wire.quic_builder import SOURCE, V1, V2, initial, long_header
from txmux.udp.migration import MINUTE, MOST_MOVES, SILENCE, MigratingPath, Migration
from txmux.wire.codec import Origin

HOME, OTHER, THIRD = "192.0.2.1:1000", "192.0.2.1:2000", "198.51.100.9:3000"
ID = bytes(range(100, 108))
FIRST = initial(b"\1")
SHORT = b"\x41" + ID + bytes(30)

WG_FIRST = b"\1\0\0\0" + b"mine" + bytes(140)
WG_ANSWER = b"\2\0\0\0" + b"your" + b"mine" + bytes(80)
WG_DATA = b"\4\0\0\0" + b"your" + bytes(40)

_WHO, _SIZES = [HOME, OTHER, THIRD, "server", "path"], st.integers(1, 1200)
_PAUSES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 30.0])
_MOVING = st.tuples(st.sampled_from([*_WHO, *3 * ["moves"]]), _SIZES, _PAUSES)
_SLOW_MOVE = [(THIRD, 1, 0.0), ("path", 1, 0.0), (THIRD, 1, 30.0), *[("moves", 1, 0.0)] * 3]
_SLOW_MOVE.append(("moves", 1, 30.0))
_EXACT = st.sampled_from([0.0, 0.0625, 0.25, 1.0, 30.0])
_HANDED_OVER = st.tuples(st.sampled_from(_WHO), _SIZES, _EXACT, st.booleans())
_VALUES = st.sampled_from(["q", "w", "", "00ff"])


def answer(
    source: bytes = ID, *, kind: int = 2, version: int = V1, destination: bytes = SOURCE
) -> bytes:
    header = long_header(0xC0 | kind << 4, version, destination, source)
    return header + (b"\0" if kind == 0 else b"") + b"\x40\x40" + bytes(64)


class MigrationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.migration: Migration[str] = Migration()
        self.path = self.begin("flow")
        self.path.from_server(answer())

    def begin(self, flow: str, first: bytes = FIRST, home: str = HOME) -> MigratingPath[str]:
        path = self.migration.begin_path(flow, home, first)
        assert path is not None
        return path

    def found(self, datagram: bytes) -> str | None:
        path = self.migration.find(datagram)
        return None if path is None else path.flow

    def says(self, source: str, size: int = 100) -> bool:
        path = self.path
        now = self.clock.seconds()
        if source != path.home:
            is_near = source.rpartition(":")[0] == str(path.home).rpartition(":")[0]
            return path.receive_at_new_address(source, size, now, is_near=is_near)
        path.last_received_at = now
        if path.watches:
            path.from_home(now)
        return True

    def answered(self) -> None:
        self.path.settle(self.clock.seconds())

    def noticed(self, size: int = 100) -> bool:
        """Have the server answer an address that may be the client's; return whether that gets it."""
        return self.path.to_visitor(size)

    def move(self, source: str) -> None:
        self.says(source)
        self.noticed()
        self.clock.advance(SILENCE)
        self.says(source)
        self.assertEqual(self.path.home, source)

    def test_headers_with_the_servers_id_are_found(self) -> None:
        self.assertEqual(self.found(SHORT), "flow")
        self.assertIsNone(self.found(b"\x41" + ID[::-1] + bytes(30)))
        self.assertIsNone(self.found(b"\x41" + ID[:7]))
        self.assertIsNone(self.found(b""))
        self.assertEqual(self.found(answer(SOURCE, destination=ID)), "flow")
        self.assertIsNone(self.found(FIRST))  # long header with the servers id is found
        self.assertIsNone(self.found(b"\xc0\0\0\0\1\x08" + ID))

    def test_ids_of_several_lengths_are_found_but_none_that_can_be_guessed(self) -> None:
        for length in range(21):
            server_id = bytes([200]) * length
            path = self.begin(f"{length}")
            path.from_server(answer(server_id))
            found = self.found(b"\x41" + server_id + bytes(30))
            self.assertEqual(found, f"{length}" if length >= 8 else None)
            path.end()

    def test_initial_and_handshake_of_any_version_have_ids(self) -> None:
        for flow, kind, version in (("v2", 3, V2), ("other", 3, 0x1A2A3A4A), ("initial", 0, V1)):
            its = flow.encode().ljust(8, b"x")
            self.begin(flow).from_server(answer(its, kind=kind, version=version))
            self.assertEqual(self.found(b"\x41" + its + bytes(30)), flow)
        short = b"\x41" + quic_vectors.SERVER_ID + bytes(30)
        second = quic_vectors.VERSION_2, quic_vectors.RETRY_2, quic_vectors.SERVER_2
        for client, retry, server in (
            (quic_vectors.VERSION_1, quic_vectors.RETRY_1, quic_vectors.SERVER_1),
            second,
        ):
            path = self.begin("vector", client)
            path.from_server(retry)
            self.assertIsNone(self.found(short))
            path.from_server(server)
            self.assertEqual(self.found(short), "vector")
            path.end()

    def test_retry_negotiation_and_other_clients_answers_have_no_id(self) -> None:
        other = b"5" * 8
        path = self.begin("other")
        for packet in (
            answer(other, kind=3), answer(other, kind=1), answer(other, version=0),
            answer(other, destination=b"someone"), b"\x41" + other + bytes(30), b"\xc0", b"",
        ):  # fmt: skip
            path.from_server(packet)
        self.assertIsNone(self.found(b"\x41" + other + bytes(30)))

    def test_id_of_two_flows_moves_none(self) -> None:
        """Nor does it once one of them has ended, in another process either."""
        thief = self.begin("thief")
        thief.from_server(answer())
        self.assertIsNone(self.found(SHORT))
        thief.end()
        self.assertIsNone(self.found(SHORT))
        self.hand_over()
        self.assertIsNone(self.found(SHORT))
        self.path.end()
        self.assertEqual((self.migration.paths, self.migration.lengths), ({}, {}))

    def test_remembers_the_last_few_ids(self) -> None:
        for number in range(100):
            self.path.from_server(answer(b"%08d" % number))
        self.assertLessEqual(len(self.migration.paths), 4)
        self.assertEqual(self.found(b"\x41" + b"%08d" % 99), "flow")
        self.assertIsNone(self.found(SHORT))

    def test_other_protocols_cannot_move(self) -> None:
        for first in (b"GET", b"\4\0\0\0" + bytes(40), WG_FIRST[:-1], b"\x41" + bytes(40), b""):
            self.assertIsNone(self.migration.begin_path("x", HOME, first))
        found = [self.path.may_tell(byte) for byte in (0x40, 2, 0xC0)]
        self.assertEqual(found, [False, False, True])
        wireguard = self.begin("w", WG_FIRST)
        self.assertEqual([wireguard.may_tell(byte) for byte in (4, 2, 0xC0)], [False, True, False])

    @given(st.binary(max_size=60))
    def test_any_bytes_from_either_side(self, datagram: bytes) -> None:
        self.migration.find(datagram)
        self.path.from_server(datagram)
        found = self.migration.begin_path("x", HOME, datagram)
        if found is not None:
            found.from_server(datagram)
            found.end()

    def test_index_of_the_server_is_found_in_data(self) -> None:
        path = self.begin("wireguard", WG_FIRST)
        self.assertIsNone(self.found(WG_DATA))
        path.from_server(WG_ANSWER)
        self.assertEqual(self.found(WG_DATA), "wireguard")
        self.assertIsNone(self.found(WG_DATA[:31]))
        self.assertIsNone(self.found(b"\4\0\0\0" + b"else" + bytes(40)))
        path.from_server(b"\2\0\0\0" + b"next" + b"anew" + bytes(80))
        self.assertEqual(self.found(b"\4\0\0\0" + b"next" + bytes(40)), "wireguard")
        self.assertEqual(self.found(WG_DATA), "wireguard")
        path.from_server(WG_ANSWER[:-1])
        path.end()
        self.assertIsNone(self.found(WG_DATA))

    def test_answers_follow_once_the_old_address_is_silent(self) -> None:
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE - 0.01)
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(0.02)
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, OTHER)
        self.assertFalse(self.path.watches)

    def test_first_datagram_after_a_pause_moves(self) -> None:
        self.says(HOME)
        self.clock.advance(SILENCE * 0.9)
        self.says(THIRD)
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE * 0.2)
        self.says(OTHER)
        self.assertEqual(self.path.home, OTHER)

    def test_another_address_moves_once_something_has_come_back_from_it(self) -> None:
        self.says(HOME)
        self.clock.advance(SILENCE)
        self.says(THIRD)
        self.says(THIRD)
        self.answered()
        self.assertEqual(self.path.home, HOME)
        self.assertTrue(self.noticed(600))
        self.assertFalse(self.noticed(1))
        self.assertEqual(self.path.home, HOME)
        self.says(THIRD)
        self.assertEqual(self.path.home, THIRD)
        self.assertFalse(self.path.watches)

    def test_server_notices_another_address_at_once_until_the_old_one_speaks_again(self) -> None:
        def noticed(source: str) -> bool:
            self.says(source)
            return self.path.must_be_noticed(self.clock.seconds())

        self.says(HOME)
        self.assertTrue(noticed(THIRD))
        self.assertTrue(noticed(THIRD))
        self.says(HOME)
        self.assertFalse(noticed(THIRD))
        self.clock.advance(SILENCE)
        self.assertTrue(noticed(THIRD))
        self.says(HOME)
        self.assertFalse(noticed(THIRD))
        self.clock.advance(SILENCE * 2)
        self.assertFalse(noticed(OTHER))

    def test_proved_address_gets_all_while_the_old_one_speaks(self) -> None:
        self.says(HOME)
        self.says(THIRD)
        self.noticed()
        self.says(THIRD)
        self.says(HOME)
        self.assertTrue(all(self.noticed(1200) for _ in range(50)))
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE)
        self.answered()
        self.noticed()
        self.assertEqual(self.path.home, HOME)
        self.says(THIRD)
        self.assertEqual(self.path.home, THIRD)

    def test_moves_a_few_times_a_minute(self) -> None:
        """However many processes have it meanwhile."""
        for go_on in (lambda: None, self.hand_over):
            self.setUp()
            for number in range(MOST_MOVES):
                self.move(f"192.0.2.1:{number}")
                go_on()
            self.assertFalse(self.says(OTHER))
            self.clock.advance(MINUTE)
            self.move(OTHER)

    # Someone on the way who has seen the ID, and wants the answers, or to have them sent to another.

    def test_addresses_that_prove_nothing_get_nothing(self) -> None:
        """While the old one speaks, in turn, or where the server drops what is forged."""
        for _ in range(200):
            self.says(THIRD)
            self.clock.advance(SILENCE * 0.9)
            self.says(HOME)
            self.answered()
            self.assertEqual(self.path.home, HOME)
        for number in range(200):
            self.says(f"198.51.100.{number}:9" if number < 100 else THIRD, size=29)
            self.clock.advance(SILENCE / 2 if number < 100 else SILENCE)
            self.answered()
            self.assertEqual(self.path.home, HOME)

    def test_answers_go_back_for_a_minute_when_the_old_address_speaks(self) -> None:
        self.move(THIRD)
        self.assertTrue(self.says(HOME))
        self.assertEqual(self.path.home, HOME)
        self.assertFalse(self.path.watches)
        for _ in range(10):
            self.assertFalse(self.says(THIRD))
            self.clock.advance(SILENCE)
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(MINUTE)
        self.move(OTHER)

    def test_address_that_answers_nothing_gets_at_most_three_times_its_bytes(self) -> None:
        self.says(THIRD, size=100)
        self.clock.advance(SILENCE)
        sent = [self.noticed(90) for _ in range(50)]
        self.assertEqual((self.path.home, sum(sent)), (HOME, 3))
        self.says("198.51.100.9:4000", size=100)
        sent = [self.noticed(90) for _ in range(50)]
        self.assertEqual((self.path.home, sum(sent)), (HOME, 3))

    def test_forged_sources_are_bounded_by_the_moves(self) -> None:
        sent = 0
        for number in range(600):
            self.says(f"198.51.100.{number % 250}:{number // 250}", size=100)
            self.clock.advance(MINUTE / 600)
            sent += sum(self.noticed(100) for _ in range(10))
        self.assertLessEqual(sent, 3 * MOST_MOVES)

    @example(_SLOW_MOVE)
    @given(st.lists(_MOVING, min_size=20, max_size=60))
    def test_any_order(self, events: Sequence[tuple[str, int, float]]) -> None:
        """Whoever speaks in any order: the address that began has the answers as soon as it speaks, and no other IP address more than it may."""
        self.setUp()
        moves: list[float] = []
        for who, size, after in events:
            self.clock.advance(after)
            before, earlier = self.path.home, self.path.before
            if who == "server":
                self.answered()
            elif who == "path":
                visitor = self.path.visitor
                got = visitor is not None and self.noticed(size)
                if visitor is not None and got and not visitor.is_proved:
                    self.assertLessEqual(visitor.sent, 3 * visitor.received)
            elif who == "moves":
                source = f"203.0.113.{len(moves)}:4000"
                self.says(source)
                self.noticed()
                self.clock.advance(SILENCE)
                self.says(source)
            else:
                self.says(who, size)
            if self.path.home not in {before, *earlier}:
                moves.append(self.clock.seconds())
            if who == HOME and len(moves) <= MOST_MOVES:
                self.assertEqual(self.path.home, HOME)
        for first, last in zip(moves, moves[MOST_MOVES:], strict=False):
            self.assertGreaterEqual(last - first, MINUTE)

    # Before and after another process goes on with them: nobody gains by the change.

    def hand_over(self) -> None:
        """Have another process go on, some time later by another clock."""
        reported = json.loads(json.dumps(self.path.as_json(Origin(self.clock.seconds()))))
        home = self.path.home
        self.path.end()
        self.assertEqual((self.migration.paths, self.migration.lengths), ({}, {}))
        self.clock.rightNow += 12345.0
        self.migration = Migration()
        path = self.migration.restore("flow", home, reported, Origin(self.clock.seconds()))
        assert path is not None
        self.path = path

    def test_flow_is_found_by_its_ids_and_learns_more(self) -> None:
        self.hand_over()
        self.assertEqual(self.found(SHORT), "flow")
        self.path.from_server(answer(b"another one"))
        self.assertEqual(self.found(b"\x41another one" + bytes(30)), "flow")
        self.path.from_server(answer(b"not for it!", destination=b"someone"))
        self.assertIsNone(self.found(b"\x41not for it!" + bytes(30)))

    def test_silence_is_counted_on(self) -> None:
        """So that an answer moves a client that waits."""
        self.says(OTHER, size=500)
        for _ in range(9):
            self.clock.advance(SILENCE / 10)
            self.hand_over()
            self.answered()
            self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE / 9)
        self.answered()
        self.assertEqual(self.path.home, OTHER)

    @given(st.lists(_HANDED_OVER, max_size=40))
    def test_any_order_with_handovers(self, events: Sequence[tuple[str, int, float, bool]]) -> None:
        outcomes = []
        for is_handed_over in (False, True):
            self.setUp()
            outcome = []
            for who, size, after, now in events:
                self.clock.advance(after)
                if now and is_handed_over:
                    self.hand_over()
                said: bool | None = None
                if who == "server":
                    self.answered()
                else:
                    said = self.noticed(size) if who == "path" else self.says(who, size)
                outcome.append((said, self.path.home, self.path.watches))
            outcomes.append(outcome)
        self.assertEqual(*outcomes)

    @given(st.dictionaries(st.sampled_from(["kind", "own_id", "later"]), _VALUES))
    def test_other_versions_are_tolerated(self, reported: dict[str, str]) -> None:
        if reported.get("own_id") in {"q", "w"}:
            del reported["own_id"]
        path = Migration[str]().restore("flow", HOME, reported, Origin(1.0))
        self.assertEqual(path is None, reported.get("kind") not in {"q", "w"})
