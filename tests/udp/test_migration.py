"""Flows that move to another address of their client, and those who would like to have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.quic_builder import SOURCE, V1, V2, initial
from tests.wire.quic_vectors import (
    RETRY_1,
    RETRY_2,
    SERVER_1,
    SERVER_2,
    SERVER_ID,
    VERSION_1,
    VERSION_2,
)
from txmux.udp.migration import (
    LONGEST_ACK,
    MINUTE,
    MOST_MOVES,
    PATIENCE,
    SILENCE,
    MigratingPath,
    Migration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME, OTHER, THIRD = "192.0.2.1:1000", "192.0.2.1:2000", "198.51.100.9:3000"
ID = bytes(range(100, 108))
FIRST = initial(b"\1")
SHORT = b"\x41" + ID + bytes(30)

WG_FIRST = b"\1\0\0\0" + b"mine" + bytes(140)
WG_ANSWER = b"\2\0\0\0" + b"your" + b"mine" + bytes(80)
WG_DATA = b"\4\0\0\0" + b"your" + bytes(40)


def answer(
    source: bytes = ID, *, kind: int = 2, version: int = V1, destination: bytes = SOURCE
) -> bytes:
    """Make a packet of a server's handshake, of a type as it is on the wire."""
    header = bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big")
    ids = bytes([len(destination)]) + destination + bytes([len(source)]) + source
    return header + ids + (b"\0" if kind == 0 else b"") + b"\x40\x40" + bytes(64)


class RoamingTestCase(SynchronousTestCase):
    """A flow of QUIC whose server has answered, and a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.migration: Migration[str] = Migration()
        self.path = self.begin("flow")
        self.path.from_server(answer())

    def begin(self, flow: str, first: bytes = FIRST, home: str = HOME) -> MigratingPath[str]:
        """Begin a flow that can move."""
        path = self.migration.begin_path(flow, home, first)
        assert path is not None
        return path

    def found(self, datagram: bytes) -> str | None:
        """Name the flow that a datagram belongs to."""
        path = self.migration.find(datagram)
        return None if path is None else path.flow

    def says(self, source: str, size: int = 100, count: int = 1) -> bool:
        """Have an address say something that belongs to the flow; tell whether it goes to the server."""
        path = self.path
        now = self.clock.seconds()
        if source != path.home:
            is_near = source.rpartition(":")[0] == str(path.home).rpartition(":")[0]
            return path.from_elsewhere(source, size, count, now, is_near=is_near)
        path.last_received_at = now
        if path.watches:
            path.from_home(size, count, now)
        return True

    def answered(self, size: int = 100) -> bool:
        """Have the server answer; tell whether it goes out."""
        return not self.path.watches or self.path.to_client(size, self.clock.seconds())

    def move(self, source: str) -> None:
        """Have an address speak twice, and the old one be silent."""
        self.says(source)
        self.clock.advance(SILENCE)
        self.says(source)
        self.assertEqual(self.path.home, source)


class FindTests(RoamingTestCase):
    """Which datagrams belong to a flow."""

    def test_short(self) -> None:
        """One with a short header that has the ID that its server has chosen."""
        self.assertEqual(self.found(SHORT), "flow")
        self.assertIsNone(self.found(b"\x41" + ID[::-1] + bytes(30)))
        self.assertIsNone(self.found(b"\x41" + ID[:7]))
        self.assertIsNone(self.found(b""))

    def test_long(self) -> None:
        """One with a long header, as long as the handshake lasts."""
        self.assertEqual(self.found(answer(SOURCE, destination=ID)), "flow")
        self.assertIsNone(self.found(FIRST))
        self.assertIsNone(self.found(b"\xc0\0\0\0\1\x08" + ID))

    def test_lengths(self) -> None:
        """IDs of different lengths are found, and none that can be guessed is learnt."""
        for length in range(21):
            server_id = bytes([200]) * length
            path = self.begin(f"{length}")
            path.from_server(answer(server_id))
            found = self.found(b"\x41" + server_id + bytes(30))
            self.assertEqual(found, f"{length}" if length >= 8 else None)
            path.end()

    def test_versions(self) -> None:
        """What tells of an ID is an Initial or Handshake packet, also of versions that are not known."""
        for flow, packet in (
            ("v2", answer(b"2" * 8, kind=3, version=V2)),
            ("other", answer(b"3" * 8, kind=3, version=0x1A2A3A4A)),
            ("initial", answer(b"4" * 8, kind=0)),
        ):
            self.begin(flow).from_server(packet)
        self.assertEqual(self.found(b"\x41" + b"2" * 8 + bytes(30)), "v2")
        self.assertEqual(self.found(b"\x41" + b"3" * 8 + bytes(30)), "other")
        self.assertEqual(self.found(b"\x41" + b"4" * 8 + bytes(30)), "initial")

    def test_vectors(self) -> None:
        """The server's packets of RFC 9001 and RFC 9369, appendix A: an Initial tells of its ID, a Retry does not."""
        short = b"\x41" + SERVER_ID + bytes(30)
        for client, retry, server in (
            (VERSION_1, RETRY_1, SERVER_1),
            (VERSION_2, RETRY_2, SERVER_2),
        ):
            path = self.begin("vector", client)
            path.from_server(retry)
            self.assertIsNone(self.found(short))
            path.from_server(server)
            self.assertEqual(self.found(short), "vector")
            path.end()

    def test_not_learnt(self) -> None:
        """A Retry, a Version Negotiation, and what is not for this client tell of none."""
        other = b"5" * 8
        path = self.begin("other")
        for packet in (
            answer(other, kind=3),
            answer(other, kind=1),
            answer(other, version=0),
            answer(other, destination=b"someone"),
            b"\x41" + other + bytes(30),
            b"\xc0",
            b"",
        ):
            path.from_server(packet)
        self.assertIsNone(self.found(b"\x41" + other + bytes(30)))

    def test_end(self) -> None:
        """A flow that is over is found no more, and leaves nothing behind."""
        self.path.end()
        self.path.end()
        self.assertIsNone(self.found(SHORT))
        self.assertEqual((self.migration.paths, self.migration._lengths), ({}, {}))

    def test_two(self) -> None:
        """An ID that two flows have moves none; a server of one's own takes no flow of another."""
        thief = self.begin("thief")
        thief.from_server(answer())
        self.assertIsNone(self.found(SHORT))
        thief.end()
        self.assertIsNone(self.found(SHORT))
        self.path.end()
        self.assertEqual((self.migration.paths, self.migration._lengths), ({}, {}))

    def test_many(self) -> None:
        """A server that chooses again and again is remembered by the last few."""
        for number in range(100):
            self.path.from_server(answer(b"%08d" % number))
        self.assertLessEqual(len(self.migration.paths), 4)
        self.assertEqual(self.found(b"\x41" + b"%08d" % 99), "flow")
        self.assertIsNone(self.found(SHORT))

    def test_others(self) -> None:
        """Other protocols cannot move."""
        for first in (b"GET", b"\4\0\0\0" + bytes(40), WG_FIRST[:-1], b"\x41" + bytes(40), b""):
            self.assertIsNone(self.migration.begin_path("x", HOME, first))

    def test_may_tell(self) -> None:
        """The first byte tells whether something may be learnt."""
        self.assertEqual(
            [self.path.may_tell(byte) for byte in (0x40, 2, 0xC0)], [False, False, True]
        )
        wireguard = self.begin("w", WG_FIRST)
        self.assertEqual([wireguard.may_tell(byte) for byte in (4, 2, 0xC0)], [False, True, False])

    @given(st.binary(max_size=60))
    def test_any(self, datagram: bytes) -> None:
        """Any bytes can come from either side."""
        self.migration.find(datagram)
        self.path.from_server(datagram)
        found = self.migration.begin_path("x", HOME, datagram)
        if found is not None:
            found.from_server(datagram)
            found.end()


class WireGuardTests(RoamingTestCase):
    """A flow of WireGuard."""

    def test_index(self) -> None:
        """The index that the server has chosen is that of the data to it."""
        path = self.begin("wireguard", WG_FIRST)
        self.assertIsNone(self.found(WG_DATA))
        path.from_server(WG_ANSWER)
        self.assertEqual(self.found(WG_DATA), "wireguard")
        self.assertIsNone(self.found(WG_DATA[:31]))
        self.assertIsNone(self.found(b"\4\0\0\0" + b"else" + bytes(40)))
        again = b"\2\0\0\0" + b"next" + b"anew" + bytes(80)
        path.from_server(again)
        self.assertEqual(self.found(b"\4\0\0\0" + b"next" + bytes(40)), "wireguard")
        self.assertEqual(self.found(WG_DATA), "wireguard")
        path.from_server(WG_ANSWER[:-1])
        path.end()
        self.assertIsNone(self.found(WG_DATA))


class MoveTests(RoamingTestCase):
    """A client whose NAT gives it another port."""

    def test_silence(self) -> None:
        """What it says goes to the server at once; answers go there once the old address has been silent."""
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE - 0.01)
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(0.02)
        self.assertTrue(self.says(OTHER))
        self.assertEqual(self.path.home, OTHER)
        self.assertFalse(self.path.watches)

    def test_server_moves_it(self) -> None:
        """A client that waits for an answer need not speak again."""
        self.says(OTHER, size=500)
        self.clock.advance(SILENCE)
        self.assertTrue(self.answered(1200))
        self.assertEqual(self.path.home, OTHER)

    def test_after_a_pause(self) -> None:
        """It moves with its first datagram if the old address has been silent for long enough before."""
        self.says(HOME)
        self.clock.advance(SILENCE * 0.9)
        self.says(THIRD)
        self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE * 0.2)
        self.says(OTHER)
        self.assertEqual(self.path.home, OTHER)
        self.assertTrue(self.answered(1200))

    def test_says_again(self) -> None:
        """At another IP address no acknowledgement keeps it from saying again what it has said, by which it proves its address."""
        self.says(THIRD, size=100)
        self.clock.advance(SILENCE)
        self.assertFalse(self.answered(LONGEST_ACK))
        self.assertEqual(self.path.home, THIRD)
        self.assertFalse(self.answered(1200))
        self.says(THIRD, size=100)
        self.assertTrue(all(self.answered(1200) for _ in range(50)))

    def test_short_answer(self) -> None:
        """There, a short answer passes at once, and an acknowledgement after a while."""
        self.says(THIRD, size=100)
        self.clock.advance(SILENCE)
        self.assertTrue(self.answered(200))
        self.assertFalse(self.answered(LONGEST_ACK))
        self.clock.advance(PATIENCE)
        self.assertTrue(self.answered(LONGEST_ACK))

    def test_again(self) -> None:
        """It may move a few times a minute."""
        for number in range(MOST_MOVES):
            self.move(f"192.0.2.1:{number}")
        self.assertFalse(self.says(OTHER))
        self.clock.advance(MINUTE)
        self.move(OTHER)


class HijackTests(RoamingTestCase):
    """Someone on the way who has seen the ID, and wants the answers, or to have them sent to another."""

    def test_while_it_speaks(self) -> None:
        """Nobody gets the answers while the old address speaks."""
        for _ in range(100):
            self.says(THIRD)
            self.clock.advance(SILENCE * 0.9)
            self.says(HOME)
            self.assertTrue(self.answered())
            self.assertEqual(self.path.home, HOME)

    def test_it_speaks_again(self) -> None:
        """They go back as soon as the old address speaks, and for a minute nobody else gets them."""
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

    def test_over_several(self) -> None:
        """That holds, too, if he has gone on from one address to the next."""
        self.move(THIRD)
        self.move(OTHER)
        self.says("198.51.100.9:4000")
        self.assertTrue(self.says(HOME))
        self.assertEqual(self.path.home, HOME)

    def test_many_addresses(self) -> None:
        """Addresses in turn get nothing, since each has to be alone for a while."""
        for number in range(200):
            self.says(f"198.51.100.{number}:9")
            self.clock.advance(SILENCE / 2)
            self.assertTrue(self.answered())
            self.assertEqual(self.path.home, HOME)

    def test_amplification(self) -> None:
        """One datagram with a forged source brings it at most three times its bytes."""
        self.says(THIRD, size=100)
        self.clock.advance(SILENCE)
        sent = [self.answered(90) for _ in range(50)]
        self.assertEqual((self.path.home, sum(sent)), (THIRD, 3))
        self.says(OTHER)  # another forged one does not open it
        self.assertFalse(self.answered(90))
        self.says(THIRD, size=100)
        self.assertTrue(all(self.answered(1200) for _ in range(50)))

    def test_near_an_unproved_one(self) -> None:
        """Another port of an address that has proved nothing proves nothing."""
        self.says(THIRD)
        self.clock.advance(SILENCE)
        self.answered()
        self.says("198.51.100.9:4000")
        self.clock.advance(SILENCE)
        sent = [self.answered(90) for _ in range(50)]
        self.assertEqual((self.path.home, sum(sent)), ("198.51.100.9:4000", 3))

    def test_all_forged(self) -> None:
        """What forged sources bring in a minute is bounded by the moves."""
        sent = 0
        for number in range(600):
            self.says(f"198.51.100.{number % 250}:{number // 250}", size=100)
            self.clock.advance(MINUTE / 600)
            sent += sum(self.answered(100) for _ in range(10) if self.path.home != HOME)
        self.assertLessEqual(sent, 3 * MOST_MOVES)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([HOME, OTHER, THIRD, "server"]),
                st.integers(1, 1200),
                st.sampled_from([0.0, 0.1, 0.5, 1.0, 30.0]),
            ),
            max_size=60,
        )
    )
    def test_any_order(self, events: Sequence[tuple[str, int, float]]) -> None:
        """Whoever speaks in any order: the address that began has the answers as soon as it speaks."""
        self.setUp()
        moves: list[float] = []
        for who, size, after in events:
            self.clock.advance(after)
            before, earlier = self.path.home, [*self.path._before]
            if who == "server":
                self.answered(size)
            else:
                self.says(who, size)
            if self.path.home not in {before, *earlier}:
                moves.append(self.clock.seconds())
            if who == HOME:
                self.assertEqual(self.path.home, HOME)
        for first, last in zip(moves, moves[MOST_MOVES:], strict=False):
            self.assertGreaterEqual(last - first, MINUTE)
