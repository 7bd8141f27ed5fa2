from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.top.terminal import read_keys

_PIECES = st.sampled_from(
    [
        b"\x1b[A", b"\x1bOB", b"\x1b[6~", b"\x1b[", b"\x1b", b"q", b"\xc3\xa9", b"\xe2\x82\xac",
        b"\xff",
    ]
)  # fmt: skip


class KeyboardTests(SynchronousTestCase):
    def test_characters_named_keys_and_ignored_sequences(self) -> None:
        data = b"aA\r\n\t\x7f\x1b[A\x1bOB\x1b[C\x1b[5~\x1b[1;5P\x1b[Z\x15\x00\xc3\xa9\xe2\x82\xac"
        keys = ["a", "A", "enter", "enter", "tab", "backspace", "up", "down", "right", "page-up"]
        self.assertEqual(read_keys(data), ([*keys, "backtab", "clear", "é", "€"], b""))

    def test_incomplete_sequences_wait_for_the_rest(self) -> None:
        self.assertEqual(read_keys(b"a\x1b"), (["a"], b"\x1b"))
        self.assertEqual(read_keys(b"\x1b[1"), ([], b"\x1b[1"))
        self.assertEqual(read_keys(b"\xe2\x82"), ([], b"\xe2\x82"))
        self.assertEqual(read_keys(b"\x1b", is_last=True), (["escape"], b""))
        self.assertEqual(read_keys(b"\x1bq"), (["escape", "q"], b""))

    @given(st.one_of(st.binary(), st.lists(_PIECES).map(b"".join)), st.data())
    def test_any_parts_give_the_same_keys(self, data: bytes, draw: st.DataObject) -> None:
        whole, left = read_keys(data)
        self.assertLess(len(left), 32)
        cut = draw.draw(st.integers(0, len(data)))
        first, rest = read_keys(data[:cut])
        second, last = read_keys(rest + data[cut:])
        self.assertEqual((first + second, last), (whole, left))
        self.assertTrue(all(key.isprintable() for key in whole))
        self.assertEqual(read_keys(left, is_last=True)[1], b"")
