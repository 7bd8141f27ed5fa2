from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.tunnels import request as module
from txmux.features.tunnels.request import LONGEST_HEAD, TunnelRequest, TunnelTarget

NAME = TunnelTarget("db.example", 5432)
LOGIN = TunnelTarget("db.example", 5432, "ops", "secret")

# What is sent, and the answer to it, by turns; RFC 1928 and RFC 1929, the SOCKS 4A memo, and RFC 9110.
SOCKS5 = [(b"\5\1\0", b"\5\0"), (b"\5\1\0\3\ndb.example\x15\x38", b"\5\0\0\1\xc0\0\2\1\xc3\x50")]
SOCKS5_LOGIN = [
    (b"\5\2\0\2", b"\5\2"),
    (b"\1\3ops\6secret", b"\1\0"),
    (b"\5\1\0\3\ndb.example\x15\x38", b"\5\0\0\3\5proxy\xc3\x50"),
]
SOCKS4 = [(b"\4\1\x15\x38\0\0\0\1\0db.example\0", b"\0\x5a\0\0\0\0\0\0")]
_HEAD = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n"
HTTP = [(_HEAD + b"\r\n", b"HTTP/1.0 200 Connection established\r\nContent-Length: 3\r\n\r\n")]
HTTP_LOGIN = [
    (_HEAD + b"Proxy-Authorization: Basic b3BzOnNlY3JldA==\r\n\r\n",
     b"HTTP/1.1 102 \r\n\r\nHTTP/1.1 204\nServer: x\n\n"),
]  # fmt: skip
Talk = tuple[module.ProxyKind, TunnelTarget, list[tuple[bytes, bytes]]]
TALKS: list[Talk] = [
    ("socks5", NAME, SOCKS5), ("socks5", LOGIN, SOCKS5_LOGIN), ("socks4", NAME, SOCKS4),
    ("http", NAME, HTTP), ("http", LOGIN, HTTP_LOGIN),
]  # fmt: skip


def fed(request: TunnelRequest, parts: Iterable[bytes]) -> str:
    sent = b""
    for number, part in enumerate(pieces := [*parts]):
        if request.is_granted:
            return repr((sent, request.rest + b"".join(pieces[number:])))
        try:
            sent += request.receive(part)
        except module.ProxyRefusedError:
            return "refused"
    return repr((sent, request.rest if request.is_granted else None))


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    ends = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)))))
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


_WORDS = b"\5", b"\0", b"\1", b"\2", b"\3", b"HTTP/1.1 ", b"200", b"\r\n", b"403 no", b"x"


class TalkTests(SynchronousTestCase):
    @given(st.binary(max_size=9), st.data())
    def test_tunnel_is_granted_and_loses_no_byte_however_it_is_cut(
        self, rest: bytes, data: st.DataObject
    ) -> None:
        for kind, target, turns in TALKS:
            request = TunnelRequest(kind, target)
            sent = [request.first]
            for number, (_, answer) in enumerate(turns):
                parts = data.draw(cut(answer))
                parts[-1] += rest if number == len(turns) - 1 else b""
                self.assertFalse(request.is_granted)
                sent.append(b"".join(request.receive(part) for part in parts))
            self.assertEqual(sent, [*(asked for asked, _ in turns), b""])
            self.assertEqual((request.is_granted, request.rest), (True, rest))

    @given(st.sampled_from(TALKS), st.lists(st.sampled_from(_WORDS)), st.data())
    def test_result_depends_on_the_bytes_alone(
        self, talk: Talk, words: list[bytes], data: st.DataObject
    ) -> None:
        answer = b"".join(words)
        whole = fed(TunnelRequest(*talk[:2]), [answer])
        self.assertEqual(fed(TunnelRequest(*talk[:2]), data.draw(cut(answer))), whole)

    def test_addresses_are_sent_as_such_and_messages_have_no_password(self) -> None:
        for host, address, text, socks4 in (
            ("192.0.2.1", b"\1\xc0\0\2\1", b"192.0.2.1:22", b"\xc0\0\2\1\0"),
            ("2001:db8::1", b"\4\x20\1\r\xb8" + bytes(11) + b"\1", b"[2001:db8::1]:22",
             b"\0\0\0\1\0" + b"2001:db8::1\0"),
        ):  # fmt: skip
            target = TunnelTarget(host, 22)
            asked = TunnelRequest("socks5", target).receive(b"\5\0")
            self.assertEqual(asked, b"\5\1\0" + address + b"\0\x16")
            self.assertIn(b"CONNECT " + text + b" ", TunnelRequest("http", target).first)
            self.assertEqual(TunnelRequest("socks4", target).first, b"\4\1\0\x16" + socks4)
        for kind, target, answer, expected in REFUSALS:
            request = TunnelRequest(kind, target)
            error = self.assertRaises(module.ProxyRefusedError, request.receive, answer)
            self.assertEqual(str(error), expected)
        self.assertNotIn("secret", repr(LOGIN))
        request = TunnelRequest("http", NAME)
        answer = b"HTTP/1.1 200 OK\r\nx: " + bytes(LONGEST_HEAD)
        for number in range(LONGEST_HEAD):
            request.receive(answer[number : number + 1])
        self.assertRaises(module.ProxyRefusedError, request.receive, b"x")


REFUSALS: list[tuple[module.ProxyKind, TunnelTarget, bytes, str]] = [
    ("socks5", NAME, b"\5\xff", "accepts only clients with a user and a password"),
    ("socks5", LOGIN, b"\5\xff", "accepts no user and password"),
    ("socks5", NAME, b"\5\2", "wants the login method 2, which was not offered"),
    ("socks5", LOGIN, b"\5\2\1\1", "does not accept user 'ops' with this password"),
    ("socks5", NAME, b"\5\0\5\1", "cannot connect: general failure (1)"),
    ("socks5", NAME, b"\5\0\5\2", "cannot connect: its rules do not allow it (2)"),
    ("socks5", NAME, b"\5\0\5\4", "cannot connect: host unreachable (4)"),
    ("socks5", NAME, b"\5\0\5\x63", "cannot connect: unknown reason (99)"),
    ("socks5", NAME, b"\5\0\4\0", "answers '\\x04\\x00', which is no SOCKS of this version"),
    ("socks5", NAME, b"\5\0\5\0\0\7", "answers with an address of the unknown type 7"),
    ("socks5", NAME, b"SSH-2.0", "answers 'SS', which is no SOCKS of this version"),
    ("socks5", NAME, b"HTTP/1.1 400 Bad Request", "answers 'HT', which is HTTP; write 'http://'"),
    ("socks5", NAME, b"\0\x5a", "answers '\\x00Z', which is no SOCKS of this version"),
    ("socks4", NAME, b"\0\x5b" + bytes(6), "cannot connect: request rejected (91)"),
    ("socks4", NAME, b"\5" + bytes(7),
     "answers '\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00', which is no SOCKS of this version"),
    ("http", NAME, b"SSH-2.0-x\r\n", "answers 'SSH-2.0-x\\r\\n', which is not HTTP"),
    ("http", NAME, b"\5", "answers '\\x05', which is not HTTP"),
    ("http", NAME, b"HTTP/1.1 200x\r\n\r\n",
     "answers 'HTTP/1.1 200x\\r\\n\\r\\n', which is not HTTP"),
    ("http", NAME, b"x" * 20, f"answers '{'x' * 20}', which is not HTTP"),
    ("http", NAME, b"x" * 21, f"answers '{'x' * 20}'…, which is not HTTP"),
    ("http", NAME, b"HTTP/1.1 403 Filtered\x1b\r\n\r\nx", "answers 403 Filtered\\x1b"),
    ("http", NAME, b"HTTP/1.1 502\r\n\r\n", "answers 502"),
    ("http", NAME, b"HTTP/1.1 101 Switching\r\n\r\n", "answers 101 Switching"),
    ("http", NAME, b"HTTP/1.1 407 No\r\n\r\n", "answers 407 No; it wants a user and a password"),
    ("http", LOGIN, b"HTTP/1.1 407 No\r\n\r\n",
     "answers 407 No; it does not accept user 'ops' with this password"),
    ("http", NAME, b"HTTP/1.1 200 OK\r\nx: " + bytes(LONGEST_HEAD),
     f"answers with a head of more than {LONGEST_HEAD} bytes"),
    ("http", NAME, b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "gives more than 20 interim answers"),
]  # fmt: skip
