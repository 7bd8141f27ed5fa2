import contextlib
import itertools
from collections.abc import Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.quic_builder import crypto
from tests.wire.quic_vectors import FRAMES
from txmux.testing import steps_in
from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import varint
from txmux.wire.quic.opening import read_frames
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, reassemble

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


class FrameTests(SynchronousTestCase):
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

    def test_other_types_empty_packets_and_frames_that_are_cut_are_wrong(self) -> None:
        for kind in set(range(0x40)) - {0, 1, 2, 3, 6, 0x1C}:
            self.assert_wrong(bytes([kind]) + bytes(20))
        self.assert_wrong(b"")
        for frame in (crypto(1, b"abc"), b"\2\5\0\1\0\1\2", b"\3\5\0\0\0\0\1\2", b"\x1c\1\6\3bye"):
            for end in range(1, len(frame)):
                self.assert_wrong(frame[:end])

    def test_limits(self) -> None:
        """There are at most 32 fragments, and a stream of 16 KiB; other frames are few."""
        fragment = crypto(0, b"x")
        self.assertEqual(len(read_frames(fragment * MOST_FRAGMENTS)), MOST_FRAGMENTS)
        self.assert_wrong(fragment * (MOST_FRAGMENTS + 1))
        self.assertEqual(len(read_frames(crypto(LONGEST_STREAM - 1, b"x"))), 1)
        self.assert_wrong(crypto(LONGEST_STREAM, b"x"))
        self.assert_wrong(crypto((1 << 62) - 1, b"x"))
        self.assert_wrong(b"\2\5\0\0\0" * 33)
        self.assert_wrong(b"\2\5\0" + b"\xff" * 8 + bytes(99))

    def test_what_a_packet_of_hostile_frames_takes_is_bounded(self) -> None:
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
