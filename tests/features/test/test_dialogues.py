from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.test.dialogues import Answer, FirstBytes, Handshake, fillers

_HEAD = b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n"


def _answered(*received: bytes) -> tuple[list[bool], Answer]:
    """Whether the answer is complete after each part, and the answer."""
    dialogue, done = FirstBytes(b"x"), []
    for data in received:
        dialogue.receive(data)
        done.append(dialogue.is_done)
    return done, dialogue.answer()


class AnswerTests(SynchronousTestCase):
    def test_complete(self) -> None:
        for parts, text in (
            ((_HEAD[:17], _HEAD[17:-1], _HEAD[-1:]), "HTTP/1.1 200 OK"),
            ((b"220 a", b"\r", b"\n"), "220 a"),
            ((b"\x00" * 2047, b"\x00"), f"{' '.join(['00000000'] * 4)} …"),
        ):
            done, answer = _answered(*parts)
            self.assertEqual((done[:-1], done[-1]), ([False] * (len(parts) - 1), True))
            self.assertEqual(answer.text, text)
        self.assertEqual(len(Handshake("www.example.com", size=8192).to_send()), 8192)

    def test_compared_by_what_stays_the_same(self) -> None:
        """Status and some headers, else the first line; of other bytes the first ones."""
        for one, other, level in (
            (_HEAD, _HEAD[:-2] + b"Date: b\r\n\r\n", 0), (_HEAD, _HEAD.replace(b"a", b"b"), 1),
            (b"220 a\r\n", b"220 a\r\nb", 0),
            (b"\0" * 64 + b"a", b"\0" * 64 + b"b", 0), (b"\0" * 63 + b"a", b"\0" * 63 + b"b", 1),
        ):  # fmt: skip
            keys = [_answered(data)[1].keys for data in (one, other)]
            self.assertEqual([a == b for a, b in zip(*keys, strict=True)].index(True), level)

    @given(st.integers(-5, 2500))
    @example(257)
    def test_size(self, size: int) -> None:
        """Each name is behind a byte with its length, which is not zero."""
        names = fillers(size)
        self.assertEqual(len({*names}), len(names))
        self.assertTrue(all(0 < len(name) < 256 for name in names))
        wanted = max(0, size)
        self.assertEqual(sum(len(name) + 1 for name in names), wanted - (wanted % 256 == 1))
