from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.matchers.http_samples import PREFACE, REQUEST, with_fields
from txmux.interfaces import Peeked
from txmux.matchers.http import http
from txmux.testing import steps_in
from txmux.wire.http_head import parse_upgrade

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
    return data.index(b"\n", data.index(field)) + 1


ALONE = "upgrade=websocket"
SOME, MANY = ",".join(["x"] * 15), ",".join(["x"] * 16)
TOO_LATE = with_fields(f"Upgrade: {MANY},websocket", "Upgrade: websocket")
VERDICTS = (
    # The end of the field is a match.
    (ALONE, WEBSOCKETS, MATCH, end_of(WEBSOCKETS, b"Upgrade")),
    (ALONE, WEBSOCKET_CLIENT, MATCH, end_of(WEBSOCKET_CLIENT, b"Upgrade")),
    (ALONE, with_fields("upgrade:WebSocket"), MATCH, 35),
    (ALONE, with_fields("Upgrade: h2c, websocket/13 ,x"), MATCH, 47),
    (ALONE, with_fields("Upgrade: h2c", "Upgrade: websocket"), MATCH, 50),
    (ALONE, b"\r\n" + with_fields("Upgrade: websocket"), MATCH, 38),
    (ALONE, b"GET http://a/ HTTP/1.1\nUpgrade: websocket\n", MATCH, 42),
    # The end of a head without it is a no.
    (ALONE, CURL, NO, len(CURL)), (ALONE, REQUEST, NO, len(REQUEST) - 4),
    (ALONE, with_fields("Upgrade: websockets"), NO, 39),
    (ALONE, with_fields("X-Upgrade: websocket"), NO, 40), (ALONE, with_fields("Upgrade:"), NO, 28),
    (ALONE, PREFACE, NO, 6), (ALONE, b"GET / RTSP/1.0", NO, 7),
    (ALONE, b"GET / HTTP/1.1\r\n", NEED_MORE),
    # Of many protocols the first 16 count.
    (ALONE, with_fields(f"Upgrade: {SOME},websocket"), MATCH),
    (ALONE, TOO_LATE, NO),
    # All options have to fit, in whatever order the fields come.
    *(
        row
        for data, last in ((WEBSOCKETS, b"Upgrade"), (WEBSOCKET_CLIENT, b"Host"))
        for row in (
            (f"{ALONE} host=127.* path=/chat", data, MATCH, end_of(data, last)),
            (f"{ALONE} host=127.* path=/x", data, NO),
            (f"{ALONE} host=a path=/chat", data, NO),
        )
    ),
    ("upgrade=websocket,H2C host=127.*", CURL, MATCH),
    ("upgrade=~h2.", CURL, MATCH),
)  # fmt: skip
TRIED = (ALONE,)
TRIED_ON = (WEBSOCKETS, WEBSOCKET_CLIENT, CURL)
UNUSABLE = (
    ("upgrade=a version=2", "upgrade: is of HTTP/1 alone; take it out, or write version=1.*"),
    ("upgrade=", "upgrade: "),
)


class ManyFieldsTests(SynchronousTestCase):
    def test_many_also_byte_by_byte(self) -> None:
        """The thousandth field is the last that is looked at, however the request is cut."""
        found = parse_upgrade(with_fields("Upgrade:" + "x," * 9999), None)
        self.assertEqual(len(found.protocols), 16)
        for option, field in (("host", "Host: websocket"), ("upgrade", "Upgrade: websocket")):
            predicate = http.predicate({option: "websocket"})
            for others, verdict in ((999, MATCH), (1000, NO)):
                data = with_fields(*["X: y"] * others, field)
                self.assertIs(predicate(Peeked(data)), verdict, (option, others))
                earlier = Peeked(data[:3000])
                self.assertIs(predicate(earlier), NEED_MORE)
                self.assertIs(predicate(Peeked(data, earlier)), verdict, (option, others))
        # A byte of a field that tells nothing costs no more than without these options; steps are counted.
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
