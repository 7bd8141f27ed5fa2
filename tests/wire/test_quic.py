import contextlib
import itertools
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire import quic_builder
from tests.wire.hello_builder import alpn, client_hello, server_name, versions
from tests.wire.quic_builder import DESTINATION, V2, crypto, initial, long_header, long_packet
from tests.wire.quic_vectors import FRAMES, RETRY_1, SERVER_1, VERSION_1, VERSION_2
from txmux.interfaces import Datagrams
from txmux.testing import steps_in
from txmux.wire import codec
from txmux.wire.cursor import MalformedError
from txmux.wire.quic.decided import DecidedHello
from txmux.wire.quic.header import (
    has_known_version,
    opens_connection,
    opens_first_connection,
    read_long_header,
    varint,
)
from txmux.wire.quic.initial import ClientKeys
from txmux.wire.quic.opening import QuicOpening, parse_opening, read_frames
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, reassemble

UNKNOWN = 0x1A2A3A4A


def packet(
    kind: int, *, version: int = quic_builder.V1, destination: bytes = DESTINATION, size: int = 1200
) -> bytes:
    head = long_header(0xC0 | kind << 4, version, destination, b"client")
    return (head + (0x4000 | size - len(head) - 2).to_bytes(2, "big")).ljust(size, b"\x55")


_SHORT = b"\x41".ljust(1200, b"\x55")
_PARTS = b"\xc0\0\0\0\1", b"\x6b\x33\x43\xcf", b"\0\0\0\1", b"abcde"


STREAM = bytes(range(256)) * 4


@st.composite
def cut_streams(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Cut a stream into fragments that overlap, some of them twice, in any order."""
    places = [0, *sorted(draw(st.sets(st.integers(1, len(STREAM) - 1), max_size=8))), len(STREAM)]
    fragments = []
    for start, end in itertools.pairwise(places):
        before, after = draw(st.integers(0, 40)), draw(st.integers(0, 40))
        first = max(0, start - before)
        fragments.append((first, STREAM[first : end + after]))
    fragments += draw(st.lists(st.sampled_from(fragments), max_size=4))
    return draw(st.permutations(fragments))


def hello(name: bytes = b"a.example.com", protocol: bytes = b"h3", random: int = 0) -> bytes:
    made = client_hello(server_name(name.decode()), alpn(protocol), versions(0x0304))
    return made[:6] + bytes([random]) * 32 + made[38:]


HELLO = hello()


class PacketTests(SynchronousTestCase):
    def test_which(self) -> None:
        """Where the client speaks QUIC already; and after another protocol, where an Initial packet that a server must drop does, too, since no other route decides about it, and what is of another version may be of RTP."""
        other = packet(0, version=UNKNOWN)
        rows: tuple[tuple[bool, tuple[bytes, ...]], ...] = (
            # An Initial packet of each version, in a datagram that a server would not drop.
            (True, (*(initial(b"\1", version=version) for version in (quic_builder.V1, V2, quic_builder.V29)), VERSION_1, VERSION_2)),
            (False, (initial(b"\1", pad=1199),)),
            # Packets of type 0-RTT that have overtaken it, of any length.
            (True, (packet(1, size=100), packet(2, version=V2, size=100))),
            # None that belongs to a connection: Handshake packets, short headers, and those of servers.
            (False, (packet(2), packet(3, version=V2), _SHORT, SERVER_1, RETRY_1, b"", b"\xc0")),
            # Only who has a token may clear the fixed bit (RFC 9287).
            (False, (initial(b"\1", fixed=False),)), (True, (initial(b"\1", fixed=False, token=b"token"),)),
            # Of other versions, a long datagram does.
            (True, (other,)), (False, (other[:1199], packet(0, version=0))),
        )  # fmt: skip
        for opens, datagrams in rows:
            for datagram in datagrams:
                self.assertEqual(opens_connection(datagram), opens, datagram[:40])
        for datagram in (
            initial(b"\1"), initial(b"\1", pad=0), initial(b"\1", fixed=False), packet(1, size=100),
            initial(b"\1", destination=b""), packet(2, size=100) + initial(b"\1"),
        ):  # fmt: skip
            self.assertTrue(opens_first_connection(datagram))
        other = packet(0, version=UNKNOWN)
        for datagram in (packet(2), packet(3), _SHORT, other, b"", b"\xc0\0\0\0\1"):
            self.assertFalse(opens_first_connection(datagram))

    def test_lengths(self) -> None:
        """A client makes up an ID of at least 8 bytes; a shorter one is that of a server."""
        for length in range(25):
            opens = opens_connection(initial(b"\1", destination=bytes(length)))
            self.assertEqual(opens, 8 <= length <= 20, length)
            self.assertEqual(opens_connection(initial(b"\1", source=bytes(length))), length <= 20)

    @given(st.lists(st.sampled_from(_PARTS), max_size=9), st.integers(0, 12), st.integers(1, 30))
    def test_known_version_among_joined_datagrams(
        self, parts: list[bytes], size: int, length: int
    ) -> None:
        """One is never missed, and nothing else is taken for it."""
        data = memoryview(bytearray(b"".join(parts) + bytes(40)))[:length]
        step = size or length or 1
        joined = [bytes(data[at : at + step]) for at in range(0, length, step)]
        known = {b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\xff\0\0\x1d"}
        if size > 4 or size == 0:
            expected = any(one[1:5] in known for one in joined)
            self.assertEqual(has_known_version(data, size), expected)
        else:
            has_known_version(data, size)

    @given(st.binary(max_size=40))
    def test_any_bytes_can_come(self, datagram: bytes) -> None:
        for opens in (opens_connection, opens_first_connection):
            opens(datagram)
            opens(b"\xc0\0\0\0\1" + datagram)

    def test_cut_header(self) -> None:
        """The IDs of an unknown version are read as soon as they are there in full; a Retry is the rest of its datagram."""
        data = bytes([0xC0]) + UNKNOWN.to_bytes(4, "big") + b"\2ab\1c"
        header = read_long_header(data)
        self.assertEqual((header.destination, header.source, header.end), (b"ab", b"c", len(data)))
        for wrong in (*(data[:end] for end in range(len(data))), b"\x40" + data[1:]):
            self.assertRaises(MalformedError, read_long_header, wrong)
        self.assertEqual(read_long_header(RETRY_1).end, len(RETRY_1))

    @given(st.integers(-1, 2**20), st.integers(1, 2), st.data())
    def test_cut_number(self, largest: int, size: int, data: st.DataObject) -> None:
        """A number that is near the next one is known by its last bytes."""
        half = 1 << 8 * size - 1
        ends = max(0, largest + 2 - half), largest + 1 + half
        for number in (*ends, data.draw(st.integers(*ends))):
            datagram = initial(b"\1", number=number, size=size)
            keys, header = ClientKeys(quic_builder.V1, DESTINATION), read_long_header(datagram)
            frames, now_largest = keys.unprotect(datagram, 0, header, largest)
            self.assertEqual((frames[0], now_largest), (1, max(number, largest)))

    def assert_wrong(self, payload: bytes) -> None:
        self.assertRaises(MalformedError, read_frames, payload)

    def test_known(self) -> None:
        """Frames of all types that may be there are read, and the fragments returned in their order."""
        self.assertEqual(read_frames(FRAMES), [(0, FRAMES[4:])])
        ack = b"\2\5\0\1\0" + b"\1\2"
        ecn = b"\3\5\0\0\0" + b"\0\1\2"
        close = b"\x1c\x41\x00\6\3bye"
        payload = (
            b"\0\0\1" + crypto(9, b"b") + ack + ecn + crypto(0, b"a") + b"\1" + close + bytes(9)
        )
        self.assertEqual((read_frames(payload), read_frames(b"\0")), ([(9, b"b"), (0, b"a")], []))

    def test_wrong_frames_cost_little(self) -> None:
        for kind in set(range(0x40)) - {0, 1, 2, 3, 6, 0x1C}:
            self.assert_wrong(bytes([kind]) + bytes(20))
        self.assert_wrong(b"")
        for frame in (crypto(1, b"abc"), b"\2\5\0\1\0\1\2", b"\3\5\0\0\0\0\1\2", b"\x1c\1\6\3bye"):
            for end in range(1, len(frame)):
                self.assert_wrong(frame[:end])
        # There are at most 32 fragments, and a stream of 16 KiB; other frames are few.
        fragment = crypto(0, b"x")
        self.assertEqual(len(read_frames(fragment * MOST_FRAGMENTS)), MOST_FRAGMENTS)
        self.assert_wrong(fragment * (MOST_FRAGMENTS + 1))
        self.assertEqual(len(read_frames(crypto(LONGEST_STREAM - 1, b"x"))), 1)
        self.assert_wrong(crypto(LONGEST_STREAM, b"x"))
        self.assert_wrong(crypto((1 << 62) - 1, b"x"))
        self.assert_wrong(b"\2\5\0\0\0" * 33)
        self.assert_wrong(b"\2\5\0" + b"\xff" * 8 + bytes(99))
        for hostile in (
            b"\0\1" * 30_000, crypto(0, b"") * 20_000, b"\2\0\0\0\0" * 12_000, b"\1" * 60_000,
        ):  # fmt: skip
            self.assertLess(steps_in(partial(self._read, hostile)), 2_000)

    @staticmethod
    def _read(payload: bytes) -> None:
        with contextlib.suppress(MalformedError):
            read_frames(payload)

    @given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda data: FRAMES[:60] + data))
    def test_any_bytes_are_read_or_are_wrong(self, payload: bytes) -> None:
        self._read(payload)

    @given(cut_streams(), st.data())
    def test_fragments(self, fragments: Sequence[tuple[int, bytes]], data: st.DataObject) -> None:
        """Pieces in any order, twice and overlapping, give the stream, however many come at once."""
        self.assertEqual(reassemble(b"", fragments), (STREAM, ()))
        half = data.draw(st.integers(0, len(fragments)))
        stream, after_gap = reassemble(b"", fragments[:half])
        self.assertTrue(STREAM.startswith(stream))
        self.assertEqual(reassemble(stream, (*after_gap, *fragments[half:])), (STREAM, ()))

    def test_what_comes_behind_a_gap_waits_and_numbers_of_rfc_9000(self) -> None:
        self.assertEqual(reassemble(b"ab", [(4, b"e"), (2, b"c")]), (b"abc", ((4, b"e"),)))
        self.assertEqual(reassemble(b"", [(1, b"b")]), (b"", ((1, b"b"),)))
        self.assertEqual(reassemble(b"", []), (b"", ()))
        for text, value in (
            ("c2197c5eff14e88c", 151288809941952652), ("9d7f3e7d", 494878333), ("7bbd", 15293),
            ("25", 37), ("4025", 37),
        ):  # fmt: skip
            data = bytes.fromhex(text)
            self.assertEqual(varint(b"x" + data, 1), (value, 1 + len(data)))
            for end in range(len(data)):
                self.assertRaises(MalformedError, varint, data[:end], 0)

    @given(cut_streams(), st.integers(0, len(STREAM) - 1), st.integers(1, 255))
    def test_conflict(self, fragments: list[tuple[int, bytes]], at: int, change: int) -> None:
        """Two fragments that differ where they overlap are wrong, in any order."""
        other = bytes([STREAM[at] ^ change])
        for several in ([*fragments, (at, other)], [(at, other), *fragments]):
            self.assertRaises(MalformedError, reassemble, b"", several)


class DecidedHelloTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.decided = self.after(initial(crypto(0, HELLO)))
        self.late: list[Datagrams] = []

    def after(self, *datagrams: bytes) -> DecidedHello:
        return DecidedHello.from_opening(parse_opening(datagrams, None))

    def admits(self, datagram: bytes, *known: bytes, decides: bool = False) -> bool:
        def ask(peeked: Datagrams) -> bool:
            self.late.append(peeked)
            return decides

        return self.decided.admits(datagram, known, ask)

    def test_everything_that_rules_ask_for_stays(self) -> None:
        for number, (data, is_same) in enumerate((
            (hello(random=9), True), (hello(b"b.example.com"), False), (hello(protocol=b"doq"), False),
        )):  # fmt: skip
            other = initial(crypto(0, data), destination=bytes([number]) * 8)
            self.assertEqual(self.admits(other), is_same)
        self.assertEqual(self.late, [])

    def test_which_go_on(self) -> None:
        """Packets without a hello do, that have a known version, are of one connection and, in a datagram, few."""
        changed = bytearray(initial(b"\1"))
        changed[-1] ^= 1
        unknown = b"\xc0\x1a\x2a\x3a\x4a\x08" + DESTINATION + bytes(40)
        small = [initial(b"\1", number=n, pad=0) for n in range(17)]
        for datagram, is_admitted, *known in (
            (initial(b"\1", pad=0), True), (long_packet(2), True), (long_packet(1), True), (b"\xc0", True),
            (b"\xc0\0\0\0\1\xff", True), (bytes(changed), False), (unknown, False), (unknown, True, unknown[1:5]),
            (long_packet(2) + unknown, False), (long_packet(2, version=0), False), (long_packet(2, version=V2), True),
            (long_packet(2) + initial(b"\1", destination=bytes(8)), False), (long_packet(2) + b"\xff" * 600, True),
            (b"".join(small[:16]), True), (b"".join(small), False),
        ):  # fmt: skip
            self.setUp()
            self.assertIs(self.admits(datagram, *known), is_admitted, datagram)

    def test_late_hello_decides_once_and_a_malformed_one_goes_nowhere(self) -> None:
        self.decided = self.after(initial(b"\1"))
        self.assertFalse(self.admits(initial(crypto(0, HELLO), number=1)))
        [peeked] = self.late
        opening = peeked.parsed_all(parse_opening)
        self.assertEqual((opening.hello.sni, opening.certain), ("a.example.com", True))
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=2), decides=True))
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=3)))
        self.assertFalse(self.admits(initial(crypto(0, hello(b"b")), number=4), decides=True))
        self.assertEqual(len(self.late), 2)
        self.decided = self.after(initial(b"\1"))
        twice = client_hello(server_name("a.example.com"), alpn(b"h3"), alpn(b"h3"))
        self.assertFalse(self.admits(initial(crypto(0, twice), number=1), decides=True))
        more = initial(crypto(0, HELLO), crypto(len(HELLO), b"\2\0\0\1x"), number=1)
        self.assertFalse(self.admits(more, decides=True))
        self.assertTrue(self.admits(initial(crypto(0, HELLO), number=1), decides=True))

    def test_known_version_after_another(self) -> None:
        """A server that does not know the first version offers others, and the ID may stay (RFC 9000, section 6.2)."""
        self.decided = self.after(quic_builder.other_version())
        self.assertFalse(self.admits(initial(crypto(0, HELLO))))
        self.assertTrue(self.admits(initial(crypto(0, HELLO)), decides=True))

    def test_after_the_handshake_there_are_only_late_acknowledgements(self) -> None:
        self.assertTrue(self.admits(initial(b"\1", number=0x1_0003, size=4)))
        for _ in "12":
            self.decided.end()
            self.assertTrue(self.admits(initial(b"\1", number=0x1_0004, size=1, pad=0)))
            self.assertFalse(self.admits(initial(crypto(0, HELLO))))
            self.assertFalse(self.admits(initial(crypto(900, b"x"), destination=bytes(8))))

    def test_connections_and_bytes_of_a_flow_are_few(self) -> None:
        ids = [bytes([n]) * 8 for n in range(40)]
        each = (initial(crypto(0, hello(random=n)), destination=ids[n]) for n in range(40))
        self.assertEqual([*map(self.admits, each)], [True] * 15 + [False] * 25)
        kept = 0
        for n in range(60):
            data = crypto(1000 + n // 10 * 1100, bytes(1100))
            kept += 1100 * self.admits(initial(data, number=n, destination=ids[n % 10], pad=0))
        self.assertGreater(kept, 24 * 1024)
        self.assertLessEqual(kept + len(HELLO), 32 * 1024)

    @settings(max_examples=scaled(60))
    @given(st.data())
    def test_another_process_judges_alike(self, data: st.DataObject) -> None:
        """Whatever comes before, and whatever then."""
        texts = [HELLO, hello(random=1), hello(b"b.example.com"), b"\2" * 90]
        at = st.integers(0, len(HELLO))
        its = st.sampled_from(texts)
        frame = st.builds(lambda start, end, text: crypto(start, text[start:end]), at, at, its)
        datagram = st.builds(
            lambda frames, number, destination: initial(*frames, number=number, destination=destination),
            st.lists(frame, max_size=3), st.integers(0, 300), st.sampled_from([DESTINATION, bytes(8)]),
        )  # fmt: skip
        datagrams = data.draw(st.lists(datagram, max_size=5))
        firsts = initial(b"\1"), initial(crypto(0, HELLO[:40])), initial(crypto(0, HELLO))
        first = data.draw(st.sampled_from(firsts))
        is_over, decides = data.draw(st.booleans()), data.draw(st.booleans())
        outcomes = []
        for is_moved in (False, True):
            self.decided = self.after(first)
            outcome = []
            for number, one in enumerate(datagrams):
                if is_over and number == 3:
                    self.decided.end()
                if is_moved:
                    text = json.dumps(codec.write(self.decided))
                    self.decided = codec.read(DecidedHello, json.loads(text))
                outcome.append(self.admits(one, decides=decides))
            outcomes.append(outcome)
        self.assertEqual(*outcomes)

    def test_senseless_values_are_refused(self) -> None:
        reported = codec.write(self.decided)
        wrongs: tuple[dict[str, Any], ...] = (
            {"hello": 1}, {"openings": [[]]}, {"openings": [["zz", 0, "", []]]},
        )  # fmt: skip
        for wrong in wrongs:
            with self.assertRaises((TypeError, ValueError)):
                codec.read(DecidedHello, {**reported, **wrong})
        self.assertEqual(QuicOpening.from_json(["00", 7, "", []]).destination, b"\0")
