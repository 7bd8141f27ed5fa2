import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.tunnels.dialogue import FurtherRequest, Login, TunnelDialogue, asked_for
from txmux.transport import normal_host
from txmux.wire.http_head import parse_request

_REQUESTS = (
    b"CONNECT db.example:5432 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nCONNECT [2001:DB8::1]:22 HTTP/1.0\n\nSSH", b"\5\2\0\2\5\1\0\3\1a\0\x50rest",
    b"\5\1\0\5\1\0\4" + bytes(15) + b"\1\1\xbb", b"\4\1\0\x50\0\0\0\1me\0host\0rest",
    b"\4\1\0\x50\x7f\0\0\1\0",
)  # fmt: skip
_ANN = b"Proxy-Authorization: Basic YW5uOnNlOmNyZXQ="
_Story = tuple[list[object], TunnelDialogue]


def told(pieces: list[bytes], *, wants_login: bool = False) -> _Story:
    dialogue = TunnelDialogue(pieces[0], wants_login=wants_login)
    events: list[object] = []
    for piece in pieces:
        dialogue.received += piece
        answer = None
        while not (events and isinstance(events[-1], bool)):
            event = dialogue.proceed(answer)
            answer = True if isinstance(event, Login | FurtherRequest) else None
            if event is None:
                break
            events.append(event)
    return events, dialogue


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({*(place % len(data) for place in places), len(data)} - {0})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class DialogueTest(SynchronousTestCase):
    def test_each_protocol_is_read_and_answered(self) -> None:
        for data, expected in zip(_REQUESTS, (
            ("connect", "db.example", 5432, b""), ("connect", "2001:db8::1", 22, b"SSH"),
            ("socks5", "a", 80, b"rest"), ("socks5", "::1", 443, b""),
            ("socks4", "host", 80, b"rest"), ("socks4", "127.0.0.1", 80, b""),
        ), strict=True):  # fmt: skip
            its = told([data])[1]
            self.assertEqual((its.kind, its.host, its.port, its.received), expected)
        # An address with a scope is none.
        host = b"fe80::1%\n\x1b[31m"
        self.assertEqual(told([b"\5\1\0\5\1\0\3%c%b\0\x50" % (len(host), host)])[0][-1], False)
        for number, reason, code in (
            (errno.ENETUNREACH, "connect-refused", 3), (errno.EHOSTUNREACH, "connect-refused", 4),
            (errno.ECONNREFUSED, "connect-refused", 5), (0, "connect-timeout", 6), (0, "limit", 1),
            (0, "tls-failed", 1),
        ):  # fmt: skip
            dialogue = told([_REQUESTS[2]])[1]
            dialogue.connect_failed(number)
            self.assertEqual(dialogue.refusal(reason)[:3], bytes([5, code, 0]))
        # A login counts as right where it is asked for; without it, the request is refused.
        request = b"\5\1\0\3\1a\0\x16SSH"
        asked, refused = asked_for(b"\5\1\2\1\3ann\1x" + request, bool, wants_login=True)
        self.assertEqual((asked.user, asked.host, asked.received), ("ann", "a", b"SSH"))
        self.assertEqual(refused, "")
        for data, wants_login, refused in (
            (_REQUESTS[0], True, "it has no login"),
            (_REQUESTS[0][:-2], True, None),
            (_REQUESTS[0], False, ""),
            (b"CONNECT x HTTP/1.1\r\n\r\n", False, "it is malformed"),
            (_REQUESTS[0] * 2, True, "another route is for what it asks for then"),
        ):
            self.assertEqual(asked_for(data, lambda _: False, wants_login=wants_login)[1], refused)

    @given(
        st.sampled_from(_REQUESTS) | st.binary(min_size=1, max_size=60), st.data(), st.booleans()
    )
    def test_cuts_change_nothing(self, data: bytes, drawn: st.DataObject, login: bool) -> None:  # noqa: FBT001
        places = drawn.draw(st.lists(st.integers(0, 200), max_size=9))
        whole, at_once = told([data], wants_login=login)
        events, dialogue = told(cut(data, places), wants_login=login)
        self.assertEqual((events, dialogue.granted), (whole, at_once.granted))
        if True in events:
            self.assertGreater(dialogue.port, 0)
            self.assertRegex(dialogue.host, r"\A[A-Za-z0-9._:-]+\Z")
        if False in events:
            self.assertIsInstance(dialogue.refusal("error"), bytes)

    def test_logins(self) -> None:
        """One, by RFC 7617; of two it is not known which counts."""
        for fields, login in (
            ((_ANN,), Login("ann", b"se:cret")),
            ((_ANN.replace(b"Basic", b"bAsIc  "),), Login("ann", b"se:cret")), ((_ANN, _ANN), None),
            ((_ANN[:-1],), None), ((_ANN.replace(b"Basic", b"Digest"),), None),
            ((b"X-" + _ANN,), None), ((), None),
        ):  # fmt: skip
            head = b"\r\n".join((b"CONNECT a:1 HTTP/1.0", *fields, b"\r\n"))
            self.assertEqual(told([head], wants_login=True)[0][0], login or False, fields)

    @given(
        st.sampled_from(("", "\r\n", "\n\r")),
        st.sampled_from((*9 * (" ",), "  ", "\t")),
        st.one_of(
            st.sampled_from(("[::ffff:127.0.0.2]:22", "127.0.0.2:22", "[0::1]:22", "DB.example.:22")),
            st.text("aA01-_", min_size=1, max_size=8).map("{}:22".format),
            st.builds(
                str.__add__,
                st.sampled_from(("a@b", "http://a", "[v1.a]", "[a]", "a:1")) | st.text("aA01.:[]@/-_\\", max_size=8),
                st.sampled_from((":22", ":0", "", ":22:22", ":x")),
            ),
        ),
    )  # fmt: skip
    def test_target_is_what_routes_decide_by(self, before: str, blank: str, target: str) -> None:
        """A request that is granted is for the host that ``host=`` has compared."""
        head = f"{before}CONNECT{blank}{target} HTTP/1.1\r\nHost: other\r\n\r\n".encode()
        events, dialogue = told([head])
        if events[-1:] == [True]:
            decided = parse_request(head, None)
            self.assertEqual(normal_host(decided.host or ""), dialogue.host)
            self.assertEqual(decided.method, "CONNECT")
