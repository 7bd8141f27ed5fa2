"""After how many bytes a server can answer its client."""

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.hello_builder import client_hello, server_name
from txmux.wire.first_request import needed
from txmux.wire.hello.records import records

_POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
_STARTUP = b"\0\0\0\x0e\0\3\0\0user\0\0"
_REQUESTS = (
    (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 35), (b"GET / HTTP/1.0\n\n", 16),
    (_POST + b"12345", len(_POST) + 5), (b"\r\n\r\nGET / HTTP/1.1\r\nX: y\r\n\r\n", 28),
    (b"PUT / HTTP/1.1\ncontent-LENGTH :\t2 \nHost: a\n\nab", 46), (_STARTUP, 14),
)  # fmt: skip


class NeededTest(SynchronousTestCase):
    @given(st.sampled_from(_REQUESTS), st.integers(1, 100), st.binary(max_size=9))
    def test_whole_to_its_last_byte(
        self, request: tuple[bytes, int], cut: int, more: bytes
    ) -> None:
        """Whatever of it has come, a server needs more; and what follows changes nothing."""
        data, end = request
        self.assertEqual(needed(data), end)
        if not data.startswith(_POST):
            self.assertEqual(needed(data + more), end)
        begun = data[: min(cut, len(data) - 1)]
        if len(begun) >= 8 or begun[:1].isalpha():
            self.assertGreater(needed(begun), len(begun))

    def test_hello(self) -> None:
        hello = records(client_hello(server_name("a.example")), b"\3\1")
        for more in (b"", b"\x17\3\3\0\1x"):
            self.assertEqual(needed(hello + more), len(hello))
        for cut in range(1, len(hello)):
            self.assertGreater(needed(hello[:cut]), cut)
        # In two records.
        body = b"\1\0\0\x06abcdef"
        split = b"\x16\3\1\0\4" + body[:4] + b"\x16\3\1\0\6" + body[4:]
        self.assertEqual(needed(split), len(split))
        self.assertGreater(needed(split[:-1]), len(split) - 1)

    def test_what_does_not_say_where_it_ends(self) -> None:
        for field in (b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:gzip, Chunked"):
            head = b"POST / HTTP/1.1\r\n" + field + b"\r\nHost: a\r\n\r\n"
            self.assertEqual(needed(head + b"1\r\na\r\n"), math.inf)
            self.assertEqual(needed(head + b"0\r\n\r\n"), 0)
        for data in (b"x", b"SSH-2.0-a\r\n", b"PING\r\n", b"\0\1", bytes(40)):
            self.assertEqual(needed(data), 0)

    @given(st.binary(min_size=1))
    def test_any(self, data: bytes) -> None:
        self.assertGreaterEqual(needed(data), 0)
