from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.ber import read_length
from txmux.wire.cursor import Cursor, MalformedError, ShortError


def written(length: int, size: int) -> bytes:
    return bytes([0x80 | size]) + length.to_bytes(size, "big") if size else bytes([length])


class LengthTests(SynchronousTestCase):
    @given(
        st.integers(0, 4).flatmap(
            lambda size: st.tuples(st.just(size), st.integers(0, (1 << 8 * size or 128) - 1))
        )
    )
    def test_definite(self, form: tuple[int, int]) -> None:
        """What is written is read, and the cursor is behind it; less of it is not enough."""
        size, length = form
        data = written(length, size)
        cursor = Cursor(data)
        self.assertEqual((read_length(cursor, 0, 1 << 33), cursor.at), (length, len(data)))
        for end in range(len(data)):
            self.assertRaises(ShortError, read_length, Cursor(data[:end]), 0, 1 << 33)

    def test_begun(self) -> None:
        """A number of which a part is there is malformed as soon as it cannot be in the range."""
        for begun, least, most, problem in (
            (b"\1", 0x1FF, 0x200, ShortError), (b"\1", 0x200, 0x300, MalformedError),
            (b"\2", 0x1FF, 0x200, ShortError), (b"\3", 0x200, 0x2FF, MalformedError),
        ):  # fmt: skip
            self.assertRaises(problem, Cursor(begun).number, 2, least, most)

    def test_malformed(self) -> None:
        self.assertEqual(read_length(Cursor(b"\x05"), 5, 6), 5)
        self.assertEqual(read_length(Cursor(b"\x81\x05"), 5, 7), 5)
        for data in (b"\x04", b"\x06", b"\x81\x04", b"\x81\x06"):
            end = len(data) + 5
            self.assertRaises(MalformedError, read_length, Cursor(data), 5, end)
        for data in (b"\x80", b"\x85", b"\xff"):
            self.assertRaises(MalformedError, read_length, Cursor(data), 0, 1 << 33)
