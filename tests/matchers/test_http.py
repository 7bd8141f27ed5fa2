from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NO, Facts
from tests.matchers.http_samples import LINE_END, PREFACE, REQUEST, with_fields
from tests.wire import http2_builder as h2
from txmux.interfaces import Peeked
from txmux.matchers.http import http
from txmux.testing import calls_in, facts, in_pieces, steps_in
from txmux.wire.http_head import METHODS, MOST_FIELDS, Stage, parse_request

# The first two are recorded from curl 7.88.1 and Wget 1.21.3.
SAMPLES = (
    b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:59861\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    (
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:59861\r\nUser-Agent: Wget/1.21.3\r\nAccept: */*\r\n"
        b"Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n"
    ),
    b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    b"PROPFIND /dav/ HTTP/1.1\r\nHost: example.com\r\nDepth: 1\r\n\r\n",
    b"SUBSCRIBE /event HTTP/1.1\r\nHost: example.com\r\nNT: upnp:event\r\n\r\n",
    PREFACE,
)
FITS = b"GET /" + b"a" * (16384 - 16) + b" HTTP/1.1\r\n"
MATCHED = (
    # The LF that ends a request line is a match, whatever follows.
    (REQUEST, LINE_END), (b"OPTIONS * HTTP/1.0\r\n", 20), (b"GET / HTTP/1.1\n\x00\xff", 15),
    # A target may have any bytes but blanks and control characters.
    (b"GET /\xc3\xa9\\{}\xff HTTP/1.1\n", 21),
    # What nginx or HAProxy serves, another host must not be read from: empty lines first, blanks, methods and versions.
    (b"\r\nGET / HTTP/1.1\r\n", 18), (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n", 22),
    (b"\nGET / HTTP/1.1\r\n", 17), (b"\r\rGET / HTTP/1.1\r\n", 18), (b"GETT / HTTP/1.1\r\n", 17),
    (b"GE / HTTP/1.1\r\n", 15), (b"_FO-O / HTTP/1.1\r\n", 18), (b"GET  / HTTP/1.1\r\n", 17),
    (b"GET\t/\t \tHTTP/1.1\r\n", 18), (b"GET / HTTP/0.9\r\n", 16), (b"GET / HTTP/2.0\r\n", 16),
    (b"GET / HTTP/1.10\r\n", 17), (b"GET / HTTP/1.1  \r\n", 18), (b"GET http://a\r\n", 13),
    (b"GET HTTPS://a/\n", 15),
    # A request line ends within 16 KiB.
    (FITS, 16384),
    # All 24 bytes are needed.
    (PREFACE + b"\x00\x00\x12\x04", 24),
    # A source of Icecast has another word for the version.
    (b"SOURCE /live.ogg ICE/1.0\r\n", 26),
    (b"SOURCE /live.ogg HTTP/1.0\r\n", 27),
    # A method with the same first letters is still HTTP/1.
    (b"PROPFIND / HTTP/1.1\r\n", 21),
)  # fmt: skip
REFUSED = (
    (b"SSH-2.0-OpenSSH\r\n", 4), (b"SSH-A / HTTP/1.1\r\n", 4), (b"PRI * HTTP/1.1\r\n", 12), (b"FOO x HTTP/1.1\r\n", 6),
    (b" GET / HTTP/1.1\r\n", 1), (b"get / HTTP/1.1\r\n", 1), (b"GET /\r\n", 6), (b"GET /a\x00 HTTP/1.1\r\n", 7),
    (b"GET http://a\x00", 13), (b"GET /a b HTTP/1.1\r\n", 8), (b"GET / http/1.1\r\n", 7), (b"GET / HTTP/11.1\r\n", 13),
    (b"GET / HTTP/1.x\r\n", 14), (b"GET / HTTP/1.1\rX", 16), (b"GET / HTTP/1.0.8\r\n", 15), (b"GET / ICE/1.0\r\n", 7),
    (b"SOURCE /x ICX/1.0\r\n", 13), (b"SOURCE /x ICE/2.0\r\n", 15), (b"SOURCE /x ICE/1.0\rX", 19),
    (b"OPTIONS rtsp://example.com RTSP/1.0\r\n", 28), (b"OPTIONS sip:a@example.com SIP/2.0\r\n", 27),
    (b"OPTIONS icap://example.com ICAP/1.0\r\n", 28), (b"CONNECT\naccept-version:1.2\n", 8),
    (b"PROXY TCP4 127.0.0.1\r\n", 11), (b"CAP LS HTTP/1.1\r\n", 7), (b"PING\r\n", 5), (b"\r\n\r\n\x00\r\nQUIT\n", 5),
    (b"\x16\x03\x01", 1), (FITS.replace(b"GET", b"POST"), 16384), (b"GET /" + b"a" * 17000, 16384),
    (b"GET /" + b"a" * (16384 - 15) + b" HTTP/1.1\r\n", 16384), (b"PRI * HTTP/1.1\r\n", 12),
    (PREFACE.replace(b"SM", b"SN"), 20),
)  # fmt: skip


# Every known method is one, and only in its own case.
VERDICTS = tuple(
    row
    for method in METHODS
    for line in [f"{method} / HTTP/1.1\r\n".encode()]
    for row in (("", line, MATCH, len(line)), ("", line.lower(), NO, 1))
)
# Method, version and host are learnt as they come; the path is not. Of HTTP/2 the version is learnt; method and host only by
# routes that ask for them.
FACTS: Facts = (
    ("", b"GE", {}), ("", b"GET /secret", {"method": "GET"}),
    ("", REQUEST[:LINE_END], {"method": "GET", "version": "1.1"}),
    ("", REQUEST, {"method": "GET", "version": "1.1", "host": "WWW.Example.com."}),
    ("", h2.CURL, {"version": "2"}), ("path=/*", PREFACE, {"version": "2"}),
    ("path=/*", h2.CURL, {"version": "2", "method": "GET", "host": "localhost"}),
    ("", b"GET foo\r\n", {}),
)  # fmt: skip
TRIED = (
    *("", "host=*.example.com", "path=/api/*,*x", "method=P* version=1.1", "version=2"),
    "host=a* path=/* method=GET",
)
TRIED_ON = (
    *(REQUEST, PREFACE, b"\r\nCONNECT a:1 HTTP/1.0\nHost:b\n\n", b"GET http://a/b HTTP/1.1\r\n"),
    b"GET / HTTP/1.1\r\n \nHost: a\r\n", b"PUT / HTTP/1.1\nHost: a\r\nHost: b\r\n\r\n",
)  # fmt: skip


class CostTests(SynchronousTestCase):
    def test_a_host_cannot_break_the_log_line_or_fill_it(self) -> None:
        odd, long = (
            facts(http.predicate({}), Peeked(with_fields(f"Host: {value}")))["host"]
            for value in ("a\x1b\xe9\\", "\xe9" * 300)
        )
        self.assertEqual((odd, len(long)), (r"a\x1b\xe9\\", 255))

    def test_a_head_sent_byte_by_byte_is_read_once_not_at_every_byte_anew(self) -> None:
        data = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 2_000
        predicate = http.predicate({"host": "a"})
        calls = calls_in(lambda: in_pieces(predicate, data, range(1, len(data))))
        self.assertLess(calls, 60 * len(data))

    def test_many_fields(self) -> None:
        """Fields before the one that names the host cost next to nothing when they come together."""
        few, many = (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * count for count in (2, 2000))
        costs = [steps_in(partial(parse_request, data, None)) for data in (few, many)]
        self.assertLess(costs[1], 2 * costs[0])

    def test_the_host_is_looked_for_in_a_thousand_fields_however_cut(self) -> None:
        for others, host in ((MOST_FIELDS - 1, "b"), (MOST_FIELDS, None)):
            head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * others
            data = head + b"Host: b\r\n\r\n"
            for cut in (17, len(head) // 2, len(head) - 1, len(head), len(head) + 1, len(data)):
                request = parse_request(data, parse_request(data[:cut], None))
                self.assertEqual((request.stage, request.host), (Stage.DONE, host))
