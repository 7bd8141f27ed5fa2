"""RESP2 as the demo's Redis reads and writes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.demo.resp import (
    COMMAND_LIMIT,
    RespError,
    array,
    bulk,
    error,
    integer,
    parse_command,
    simple,
)


def _request(words: list[bytes]) -> bytes:
    return array(*map(bulk, words))


class ParseTests(SynchronousTestCase):
    """`parse_command`: whole commands, parts of commands, and what is no command."""

    def assert_refused(self, data: bytes, message: str) -> None:
        """Assert that bytes are refused with a message."""
        self.assertIn(message, str(self.assertRaises(RespError, parse_command, data)))

    def test_array(self) -> None:
        """An array of bulk strings is a command; bytes after it are left."""
        data = b"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\nrest"
        self.assertEqual(parse_command(data), ([b"ECHO", b"\r\n"], len(data) - 4))

    def test_inline(self) -> None:
        """A line is a command of words, quoted or not, with or without CR."""
        self.assertEqual(parse_command(b"PING\r\n"), ([b"PING"], 6))
        self.assertEqual(parse_command(b'set a "b \xff"\n'), ([b"set", b"a", b"b \xff"], 12))

    def test_empty(self) -> None:
        """An empty line, an empty array and a null array are commands of no words."""
        for data in (b"\r\n", b"*0\r\n", b"*-1\r\n"):
            self.assertEqual(parse_command(data), ([], len(data)))

    def test_refused(self) -> None:
        """What cannot become a command is refused with Redis's own words where it has some."""
        self.assert_refused(b"*x\r\n", "invalid multibulk length")
        self.assert_refused(b"*1_0\r\n", "invalid multibulk length")
        self.assert_refused(b"*1025\r\n", "invalid multibulk length")
        self.assert_refused(b"*" + b"1" * 40, "invalid multibulk length")
        self.assert_refused(b"*1\r\n:", "expected '$', got ':'")
        self.assert_refused(b"*1\r\n\x1b", r"expected '$', got '\x1b'")
        self.assert_refused(b"*1\r\n$-1\r\n", "invalid bulk length")
        self.assert_refused(b"*1\r\n$" + b"1" * 40, "invalid bulk length")
        self.assert_refused(b"*1\r\n$4\r\nPINGPONG", "CR LF")
        self.assert_refused(b"say 'it\n", "unbalanced quotes")

    def test_limits(self) -> None:
        """No command is longer than the limit, whichever way it is written."""
        self.assert_refused(b"x" * COMMAND_LIMIT, "too big inline request")
        self.assert_refused(b"*1\r\n$%d\r\n" % COMMAND_LIMIT, "invalid bulk length")
        many = b"*1000\r\n" + b"$600\r\n%b\r\n" % bytes(600) * 1000
        self.assert_refused(many, "invalid bulk length")
        self.assertIsNone(parse_command(b"x" * (COMMAND_LIMIT - 1)))

    @given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=20))
    def test_any_split(self, words: list[bytes], rest: bytes) -> None:
        """However a command is cut, it is incomplete until its last byte, and then the same."""
        request = _request(words)
        for length in range(len(request)):
            self.assertIsNone(parse_command(request[:length]))
        self.assertEqual(parse_command(request + rest), (words, len(request)))

    @given(st.binary(max_size=60), st.sampled_from([b"", b"*", b"*1\r\n", b"*2\r\n$1\r\na\r\n$"]))
    def test_anything(self, data: bytes, start: bytes) -> None:
        """Whatever the bytes, there is a command within them, a wish for more, or a refusal."""
        try:
            parsed = parse_command(start + data)
        except RespError:
            return
        if parsed is not None:
            self.assertIn(parsed[1], range(1, len(start + data) + 1))


class EncodeTests(SynchronousTestCase):
    """The replies."""

    def test_replies(self) -> None:
        """Each kind has its first byte and its line ends."""
        self.assertEqual(simple("OK"), b"+OK\r\n")
        self.assertEqual(error("ERR no"), b"-ERR no\r\n")
        self.assertEqual(integer(3), b":3\r\n")
        self.assertEqual(bulk(b"a\r\nb"), b"$4\r\na\r\nb\r\n")
        self.assertEqual(bulk(None), b"$-1\r\n")
        self.assertEqual(array(integer(1), simple("x")), b"*2\r\n:1\r\n+x\r\n")
