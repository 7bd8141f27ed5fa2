"""The `http` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, calls_in, decided, facts, in_pieces
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers._http_head import METHODS
from txmux.matchers.http import HttpMatcher

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

REQUEST = (
    b"GET /api/x?q=1 HTTP/1.1\r\nAccept: */*\r\nhOst:  WWW.Example.com.:8080 \r\nX: y\r\n\r\nbody"
)
LINE_END = REQUEST.index(b"\n") + 1
HOST_END = REQUEST.index(b"\r\nX:") + 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def said(data: bytes, **options: str) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(HttpMatcher().predicate(options), data)


def with_fields(*fields: str) -> bytes:
    """Make a request with these header fields."""
    return "\r\n".join(("GET / HTTP/1.1", *fields, "", "")).encode("latin-1")


class RequestLineTests(SynchronousTestCase):
    """Without options the request line decides."""

    def test_match(self) -> None:
        """The LF that ends a request line is a match, whatever follows."""
        self.assertEqual(said(REQUEST), (MATCH, LINE_END))
        self.assertEqual(said(b"OPTIONS * HTTP/1.0\r\n"), (MATCH, 20))
        self.assertEqual(said(b"GET / HTTP/1.1\n\x00\xff"), (MATCH, 15))

    def test_methods(self) -> None:
        """Every known method is one, and only in its own case."""
        for method in METHODS:
            line = f"{method} / HTTP/1.1\r\n".encode()
            self.assertEqual(said(line), (MATCH, len(line)))
            self.assertEqual(said(line.lower()), (NO, 1))

    def test_need_more(self) -> None:
        """Every beginning of a request line is undecided."""
        self.assertEqual(said(REQUEST[: LINE_END - 1]), (NEED_MORE, LINE_END - 1))

    def test_target(self) -> None:
        """A target may have any bytes but blanks and control characters."""
        self.assertEqual(said(b"GET /\xc3\xa9\\{}\xff HTTP/1.1\n"), (MATCH, 21))

    def test_empty_lines(self) -> None:
        """Up to two empty lines may come first."""
        self.assertEqual(said(b"\r\nGET / HTTP/1.1\r\n"), (MATCH, 18))
        self.assertEqual(said(b"\r\n\r\nGET / HTTP/1.1\r\n"), (MATCH, 20))
        self.assertEqual(said(b"\r\n\r\n\r\nGET / HTTP/1.1\r\n"), (NO, 5))
        self.assertEqual(said(b"\nGET / HTTP/1.1\r\n"), (NO, 1))
        self.assertEqual(said(b"\r\rGET / HTTP/1.1\r\n"), (NO, 2))

    def test_no(self) -> None:
        """The first byte off the grammar is a no."""
        for line, at in (
            (b"SSH-2.0-OpenSSH\r\n", 3),
            (b"GETT / HTTP/1.1\r\n", 4),
            (b"GE / HTTP/1.1\r\n", 3),
            (b" GET / HTTP/1.1\r\n", 1),
            (b"get / HTTP/1.1\r\n", 1),
            (b"GET  / HTTP/1.1\r\n", 5),
            (b"GET\t/ HTTP/1.1\r\n", 4),
            (b"GET /\r\n", 6),
            (b"GET /a\x00 HTTP/1.1\r\n", 7),
            (b"GET /a b HTTP/1.1\r\n", 8),
            (b"GET / http/1.1\r\n", 7),
            (b"GET / HTTP/0.9\r\n", 12),
            (b"GET / HTTP/2.0\r\n", 12),
            (b"GET / HTTP/1.x\r\n", 14),
            (b"GET / HTTP/1.10\r\n", 15),
            (b"GET / HTTP/1.1 \r\n", 15),
            (b"GET / HTTP/1.1\rX", 16),
            (b"OPTIONS rtsp://example.com RTSP/1.0\r\n", 28),
            (b"OPTIONS sip:a@example.com SIP/2.0\r\n", 27),
            (b"OPTIONS icap://example.com ICAP/1.0\r\n", 28),
            (b"CONNECT\naccept-version:1.2\n", 8),
            (b"PROXY TCP4 127.0.0.1\r\n", 4),
            (b"PING\r\n", 2),
            (b"\r\n\r\n\x00\r\nQUIT\n", 5),
            (b"\x16\x03\x01", 1),
        ):
            self.assertEqual(said(line), (NO, at), line)

    def test_longest(self) -> None:
        """A request line ends within 16 KiB."""
        fits = b"GET /" + b"a" * (16384 - 16) + b" HTTP/1.1\r\n"
        self.assertEqual(said(fits), (MATCH, 16384))
        self.assertEqual(said(fits.replace(b"GET", b"POST")), (NO, 16384))
        self.assertEqual(said(b"GET /" + b"a" * 17000), (NO, 16384))
        self.assertEqual(said(b"GET /" + b"a" * (16384 - 15) + b" HTTP/1.1\r\n"), (NO, 16384))


class PrefaceTests(SynchronousTestCase):
    """HTTP/2 is known by its preface."""

    def test_match(self) -> None:
        """All 24 bytes are needed."""
        self.assertEqual(said(PREFACE + b"\x00\x00\x12\x04"), (MATCH, 24))
        self.assertEqual(said(PREFACE[:23]), (NEED_MORE, 23))

    def test_no(self) -> None:
        """The first byte off the preface is a no."""
        self.assertEqual(said(b"PRI * HTTP/1.1\r\n"), (NO, 12))
        self.assertEqual(said(PREFACE.replace(b"SM", b"SN")), (NO, 20))

    def test_near(self) -> None:
        """A method with the same first letters is still HTTP/1."""
        self.assertEqual(said(b"PROPFIND / HTTP/1.1\r\n"), (MATCH, 21))

    def test_options_that_it_hides(self) -> None:
        """With a method, host or path asked for it is a no, at the byte that is no HTTP/1 any more."""
        self.assertEqual(said(PREFACE, host="*"), (NO, 3))
        self.assertEqual(said(PREFACE, path="*"), (NO, 3))
        self.assertEqual(said(PREFACE, method="*"), (NO, 3))


class VersionTests(SynchronousTestCase):
    """``version=`` names what is spoken."""

    def test_http1(self) -> None:
        """The version is known at its last digit, and a match at the end of the line."""
        self.assertEqual(said(REQUEST, version="1.1"), (MATCH, LINE_END))
        self.assertEqual(said(REQUEST, version="1.*"), (MATCH, LINE_END))
        self.assertEqual(said(REQUEST, version="1.0,2"), (NO, LINE_END - 2))
        self.assertEqual(said(PREFACE, version="1.*"), (NO, 3))

    def test_http2(self) -> None:
        """HTTP/2 goes by both its names, and rules out all else at once."""
        for version in ("2", "2.0", "2*"):
            self.assertEqual(said(PREFACE, version=version), (MATCH, 24))
        self.assertEqual(said(REQUEST, version="2"), (NO, 1))
        self.assertEqual(said(b"PROPFIND / HTTP/1.1\r\n", version="2"), (NO, 3))
        self.assertEqual(HttpMatcher().predicate({"version": "2"}).longest, 24)

    def test_unknown(self) -> None:
        """A version that there is not is an error that lists those there are."""
        error = self.assertRaises(OptionError, HttpMatcher().predicate, {"version": "1.1,3"})
        self.assertEqual(str(error), "version: '3' matches nothing; possible are 1.0, 1.1, 2, 2.0")

    def test_contradiction(self) -> None:
        """HTTP/2 alone cannot be asked for its host."""
        options = {"version": "2", "host": "example.com"}
        error = self.assertRaises(OptionError, HttpMatcher().predicate, options)
        self.assertIn("version: ", str(error))


class MethodTests(SynchronousTestCase):
    """``method=`` names methods."""

    def test_match(self) -> None:
        """The line still has to be a request line."""
        self.assertEqual(said(REQUEST, method="GET,HEAD"), (MATCH, LINE_END))
        self.assertEqual(said(b"PROPFIND / HTTP/1.1\r\n", method="PROP*"), (MATCH, 21))
        self.assertEqual(said(b"GET / RTSP/1.0\r\n", method="GET"), (NO, 7))

    def test_no(self) -> None:
        """The first byte that no wanted method has there is a no."""
        self.assertEqual(said(b"POST / HTTP/1.1\r\n", method="GET"), (NO, 1))
        self.assertEqual(said(b"POST / HTTP/1.1\r\n", method="PUT,GET"), (NO, 2))
        self.assertEqual(said(b"UNLINK / HTTP/1.1\r\n", method="UNL?CK"), (NO, 4))

    def test_unknown(self) -> None:
        """A method that there is not is an error."""
        for method in ("get", "FETCH", "PRI"):
            error = self.assertRaises(OptionError, HttpMatcher().predicate, {"method": method})
            self.assertIn(f"method: {method!r} matches nothing", str(error))


class PathTests(SynchronousTestCase):
    """``path=`` looks at the path in the target."""

    def test_match(self) -> None:
        """The path is as sent, without the query."""
        self.assertEqual(said(REQUEST, path="/api/*"), (MATCH, LINE_END))
        self.assertEqual(said(REQUEST, path="/api/x"), (MATCH, LINE_END))
        self.assertEqual(said(b"GET /a%2Fb HTTP/1.1\n", path="/a%2Fb"), (MATCH, 20))

    def test_no(self) -> None:
        """The first byte that no wanted path has there is a no; so is the end of a path that is too short."""
        self.assertEqual(said(REQUEST, path="/static/*"), (NO, 6))
        self.assertEqual(said(REQUEST, path="/api/xyz"), (NO, 11))
        self.assertEqual(said(REQUEST, path="/api/?y,/API/*"), (NO, 11))
        self.assertEqual(said(REQUEST, path="*.html"), (NO, 11))
        self.assertEqual(said(b"GET /api HTTP/1.1\r\n", path="/api/*"), (NO, 9))

    def test_absolute_form(self) -> None:
        """The path of a target with scheme and host is what follows the host."""
        for target, path in (
            (b"http://example.com/a/b?c", "/a/b"),
            (b"http://example.com", "/"),
            (b"http://example.com?c", "/"),
        ):
            line = b"GET " + target + b" HTTP/1.1\r\n"
            self.assertEqual(said(line, path=path), (MATCH, len(line)))
            self.assertEqual(said(line, path="/x"), (NO, len(target) + 5))

    def test_no_path(self) -> None:
        """A target without a path is a no where the target ends."""
        self.assertEqual(said(b"OPTIONS * HTTP/1.1\r\n", path="*"), (NO, 10))
        self.assertEqual(said(b"CONNECT example.com:443 HTTP/1.1\r\n", path="*"), (NO, 24))
        self.assertEqual(said(b"GET example.com:443 HTTP/1.1\r\n", path="*"), (NO, 20))


class HostTests(SynchronousTestCase):
    """``host=`` looks at the host that is asked for."""

    def test_field(self) -> None:
        """The end of the Host line decides; case, port, final dot and blanks around it do not count."""
        self.assertEqual(said(REQUEST, host="www.example.com"), (MATCH, HOST_END))
        self.assertEqual(said(REQUEST, host="*.example.com"), (MATCH, HOST_END))
        self.assertEqual(said(REQUEST, host="example.com"), (NO, HOST_END))
        self.assertEqual(said(REQUEST[: HOST_END - 1], host="*"), (NEED_MORE, HOST_END - 1))

    def test_line_ends(self) -> None:
        """Lines may end with LF alone."""
        self.assertEqual(said(b"GET / HTTP/1.1\nHost:a\n\n", host="a"), (MATCH, 22))

    def test_addresses(self) -> None:
        """An IPv6 address is asked for without its brackets."""
        for value in ("[2001:DB8::1]", "[2001:db8::1]:80", "[2001:db8::1]:"):
            verdict = said(with_fields(f"Host: {value}"), host="2001:db8::1").verdict
            self.assertIs(verdict, MATCH, value)

    def test_first(self) -> None:
        """Of several Host fields the first counts."""
        data = with_fields("Host: a", "Host: b")
        self.assertIs(said(data, host="a").verdict, MATCH)
        self.assertIs(said(data, host="b").verdict, NO)

    def test_lookalikes(self) -> None:
        """What is not quite a Host field does not count."""
        for field in ("Host : a", " Host: a", "Host", "X-Host: a", "Hosts: a", "host=a"):
            data = with_fields(field)
            self.assertEqual(said(data, host="a"), (NO, len(data)), field)

    def test_strange_values(self) -> None:
        """A value that is no host and port is compared as it is."""
        for value in ("a:b", "a:1:2", "[::1", "b@a", "a/", "a b"):
            self.assertIs(said(with_fields(f"Host: {value}"), host="a,b").verdict, NO, value)

    def test_none(self) -> None:
        """The end of a head without Host is a no."""
        self.assertEqual(said(b"GET / HTTP/1.0\r\nA: b\r\n\r\n", host="*"), (NO, 24))
        self.assertEqual(said(b"GET / HTTP/1.0\n\nHost: a\n", host="*"), (NO, 16))

    def test_absolute_form(self) -> None:
        """The host of an absolute target goes before the Host field, and is known earlier."""
        line = b"GET http://u:p@a.example:80/ HTTP/1.1\r\n"
        self.assertEqual(said(line + b"Host: b\r\n", host="a.example"), (MATCH, len(line)))
        self.assertEqual(said(line + b"Host: b\r\n", host="b"), (NO, 29))

    def test_connect(self) -> None:
        """The host of CONNECT is its target."""
        line = b"CONNECT a.example:443 HTTP/1.1\r\n"
        self.assertEqual(said(line + b"Host: b\r\n", host="a.example"), (MATCH, len(line)))
        self.assertEqual(said(line + b"Host: b\r\n", host="b"), (NO, 22))

    def test_longest(self) -> None:
        """The Host line ends within 64 KiB."""
        start = b"GET / HTTP/1.1\r\nX: "
        end = b"\r\nHost: a\r\n"
        fits = start + b"x" * (65536 - len(start) - len(end)) + end
        self.assertEqual(said(fits, host="a"), (MATCH, 65536))
        self.assertEqual(said(fits.replace(b"X", b"XX"), host="a"), (NO, 65536))

    def test_all_options(self) -> None:
        """All that is asked for has to hold."""
        wanted = {"method": "GET", "path": "/api/*", "host": "*.example.com", "version": "1.1"}
        self.assertEqual(said(REQUEST, **wanted), (MATCH, HOST_END))
        for name, other in (
            ("method", "PUT"),
            ("path", "/x"),
            ("host", "b.example"),
            ("version", "1.0"),
        ):
            self.assertIs(said(REQUEST, **{**wanted, name: other}).verdict, NO)


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def learnt(self, data: bytes) -> dict[str, str]:
        """Give the facts of a sample."""
        return facts(HttpMatcher().predicate({}), Peeked(data))

    def test_http1(self) -> None:
        """Method, version and host are learnt as they come; the path is not."""
        self.assertEqual(self.learnt(b"GE"), {})
        self.assertEqual(self.learnt(b"GET /secret"), {"method": "GET"})
        self.assertEqual(self.learnt(REQUEST[:LINE_END]), {"method": "GET", "version": "1.1"})
        self.assertEqual(
            self.learnt(REQUEST),
            {"method": "GET", "version": "1.1", "host": "WWW.Example.com."},
        )

    def test_http2(self) -> None:
        """Of HTTP/2 the version is learnt."""
        self.assertEqual(self.learnt(PREFACE), {"version": "2"})

    def test_other(self) -> None:
        """Of what is no HTTP nothing is learnt."""
        self.assertEqual(self.learnt(b"GET foo\r\n"), {})

    def test_hostile_host(self) -> None:
        """A host cannot break the log line, or fill it."""
        self.assertEqual(self.learnt(with_fields("Host: a\x1b\xe9\\"))["host"], r"a\x1b\xe9\\")
        self.assertEqual(len(self.learnt(with_fields("Host: " + "\xe9" * 300))["host"]), 255)


class CostTests(SynchronousTestCase):
    """Sending byte by byte is not a way to make txmux work."""

    def test_long_head(self) -> None:
        """A head sent byte by byte is read once, not at every byte anew."""
        data = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 2_000
        predicate = HttpMatcher().predicate({"host": "a"})
        calls = calls_in(lambda: in_pieces(predicate, data, range(1, len(data))))
        self.assertLess(calls, 60 * len(data))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(
            [
                {},
                {"host": "*.example.com"},
                {"path": "/api/*,*x"},
                {"method": "P*", "version": "1.1"},
                {"version": "2"},
                {"host": "a*", "path": "/*", "method": "GET"},
            ]
        ),
        st.binary(max_size=30)
        | st.builds(
            lambda sample, at, junk, cut: sample[:at] + junk + sample[at + cut :],
            st.sampled_from(
                [
                    REQUEST,
                    PREFACE,
                    b"\r\nCONNECT a:1 HTTP/1.0\nHost:b\n\n",
                    b"GET http://a/b HTTP/1.1\r\n",
                ]
            ),
            st.integers(0, 90),
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\n", b" ", b"Host: a\r\n"]),
            st.integers(0, 9),
        ),
    )
    def test_any_bytes(self, options: dict[str, str], data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data, **options)
