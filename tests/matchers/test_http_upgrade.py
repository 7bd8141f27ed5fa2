"""The option ``upgrade=`` of the `http` matcher, and requests with very many fields."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.http_samples import PREFACE, REQUEST, said, with_fields
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.http import http
from txmux.testing import check_matcher, steps_in
from txmux.wire.http_head import parse_upgrade

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

# Recorded from websockets 17.4 and websocket-client 1.9.2, both of PyPI, and from curl 7.88.1 with --http2.
WEBSOCKETS = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1:36771\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: IGU9pxNyQ1yH42MRyipAUA==\r\nSec-WebSocket-Version: 13\r\n"
    b"User-Agent: Python/3.11 websockets/17.4\r\n\r\n"
)
WEBSOCKET_CLIENT = (
    b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nHost: 127.0.0.1:43715\r\nOrigin: http://127.0.0.1:43715\r\n"
    b"Sec-WebSocket-Key: eDiWt5TBCyptzfXGKWtigg==\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n\r\n"
)
CURL = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
)


def end_of(data: bytes, field: bytes) -> int:
    """Tell where the line of a field ends."""
    return data.index(b"\n", data.index(field)) + 1


class UpgradeTests(SynchronousTestCase):
    """``upgrade=`` names protocols."""

    def test_contract(self) -> None:
        """The end of the field is a match, and that of a head without it is a no."""
        check_matcher(
            http,
            samples=[
                (WEBSOCKETS, end_of(WEBSOCKETS, b"Upgrade")),
                (WEBSOCKET_CLIENT, end_of(WEBSOCKET_CLIENT, b"Upgrade")),
                (with_fields("upgrade:WebSocket"), 35),
                (with_fields("Upgrade: h2c, websocket/13 ,x"), 47),
                (with_fields("Upgrade: h2c", "Upgrade: websocket"), 50),
                (b"\r\n" + with_fields("Upgrade: websocket"), 38),
                (b"GET http://a/ HTTP/1.1\nUpgrade: websocket\n", 42),
            ],
            not_samples=[
                (CURL, len(CURL)),
                (REQUEST, len(REQUEST) - 4),
                (with_fields("Upgrade: websockets"), 39),
                (with_fields("X-Upgrade: websocket"), 40),
                (with_fields("Upgrade:"), 28),
                (PREFACE, 3),
                (b"GET / RTSP/1.0", 7),
            ],
            undecided=[WEBSOCKETS[: end_of(WEBSOCKETS, b"Upgrade") - 1], b"GET / HTTP/1.1\r\n"],
            options={"upgrade": "websocket"},
        )

    def test_with_others(self) -> None:
        """All options have to fit, in whatever order the fields come."""
        for data, last in ((WEBSOCKETS, b"Upgrade"), (WEBSOCKET_CLIENT, b"Host")):
            wanted = {"upgrade": "websocket", "host": "127.*", "path": "/chat"}
            self.assertEqual(said(data, **wanted), (MATCH, end_of(data, last)))
            self.assertEqual(said(data, **{**wanted, "path": "/x"}).verdict, NO)
            self.assertEqual(said(data, **{**wanted, "host": "a"}).verdict, NO)
        self.assertEqual(said(CURL, upgrade="websocket,H2C", host="127.*").verdict, MATCH)
        self.assertEqual(said(CURL, upgrade="~h2.").verdict, MATCH)

    def test_unusable(self) -> None:
        """HTTP/2 alone cannot be wanted with it, and patterns have to be right."""
        error = self.assertRaises(OptionError, http.predicate, {"upgrade": "a", "version": "2"})
        self.assertEqual(
            str(error), "upgrade: is of HTTP/1 alone; take it out, or write version=1.*"
        )
        self.assertRaises(OptionError, http.predicate, {"upgrade": ""})

    def test_many_protocols(self) -> None:
        """Of many protocols the first 16 count."""
        some, many = ",".join(["x"] * 15), ",".join(["x"] * 16)
        self.assertEqual(
            said(with_fields(f"Upgrade: {some},websocket"), upgrade="websocket").verdict, MATCH
        )
        data = with_fields(f"Upgrade: {many},websocket", "Upgrade: websocket")
        self.assertEqual(said(data, upgrade="websocket").verdict, NO)
        self.assertEqual(
            len(parse_upgrade(with_fields("Upgrade:" + "x," * 9999), None).protocols), 16
        )


class ManyFieldsTests(SynchronousTestCase):
    """A head made to be slow."""

    def test_many(self) -> None:
        """The thousandth field is the last that is looked at, however the request is cut."""
        for option, field in (("host", "Host: websocket"), ("upgrade", "Upgrade: websocket")):
            predicate = http.predicate({option: "websocket"})
            for others, verdict in ((999, MATCH), (1000, NO)):
                data = with_fields(*["X: y"] * others, field)
                self.assertIs(predicate(Peeked(data)), verdict, (option, others))
                earlier = Peeked(data[:3000])
                self.assertIs(predicate(earlier), NEED_MORE)
                self.assertIs(predicate(Peeked(data, earlier)), verdict, (option, others))

    def test_byte_by_byte(self) -> None:
        """A byte of a field that tells nothing costs no more than without these options; steps are counted."""
        cost = {
            option: self._cost({option: "websocket"} if option else {})
            for option in ("", "host", "upgrade")
        }
        self.assertLessEqual(max(cost.values()), cost[""], cost)

    def _cost(self, options: dict[str, str]) -> int:
        predicate = http.predicate(options)
        data = with_fields("X: " + "y" * 300).rstrip()
        peeked = Peeked(data[:100])
        predicate(peeked)

        def send() -> None:
            nonlocal peeked
            for length in range(101, 200):
                peeked = Peeked(data[:length], peeked)
                predicate(peeked)

        return steps_in(send)
