"""The options of the `http` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.http_samples import HOST_END, LINE_END, PREFACE, REQUEST, said, with_fields
from txmux.errors import OptionError
from txmux.interfaces import Verdict
from txmux.matchers.http import http

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


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
        self.assertEqual(http.predicate({"version": "2"}).longest, 24)

    def test_unknown(self) -> None:
        """A version that there is not is an error that lists those there are."""
        error = self.assertRaises(OptionError, http.predicate, {"version": "1.1,3"})
        self.assertEqual(str(error), "version: '3' matches nothing; possible are 1.0, 1.1, 2, 2.0")


class MethodTests(SynchronousTestCase):
    """``method=`` names methods."""

    def test_match(self) -> None:
        """The line still has to be a request line."""
        self.assertEqual(said(REQUEST, method="GET,HEAD"), (MATCH, LINE_END))
        self.assertEqual(said(b"PROPFIND / HTTP/1.1\r\n", method="PROP*"), (MATCH, 21))
        self.assertEqual(said(b"GET / RTSP/1.0\r\n", method="GET"), (NO, 7))

    def test_no(self) -> None:
        """The first byte that no wanted method has there is a no."""
        self.assertEqual(said(b"HEAD / HTTP/1.1\r\n", method="GET"), (NO, 1))
        self.assertEqual(said(b"POST / HTTP/1.1\r\n", method="GET", version="1.1"), (NO, 1))
        self.assertEqual(said(b"POST / HTTP/1.1\r\n", method="GET"), (NO, 2))
        self.assertEqual(said(b"POST / HTTP/1.1\r\n", method="PUT,GET"), (NO, 2))
        self.assertEqual(said(b"UNLINK / HTTP/1.1\r\n", method="UNL?CK"), (NO, 4))

    def test_unknown(self) -> None:
        """A method that there is not is an error."""
        for method in ("get", "FETCH", "PRI"):
            error = self.assertRaises(OptionError, http.predicate, {"method": method})
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
        self.assertEqual(said(REQUEST, host="*.org"), (NO, HOST_END))
        self.assertEqual(said(REQUEST[: HOST_END - 1], host="*"), (NEED_MORE, HOST_END - 1))

    def test_begun(self) -> None:
        """The first byte of the name that no pattern can have is a no."""
        start = REQUEST.lower().index(b"www.")
        self.assertEqual(said(REQUEST, host="example.com"), (NO, start + 1))
        self.assertEqual(said(REQUEST, host="www.example.org"), (NO, start + len("www.example.c")))
        self.assertEqual(said(REQUEST, host="WWW.*.org,[::1]"), (NO, HOST_END))

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
        odd = b"CONNECT /x HTTP/1.1\r\nHost: b\r\n\r\n"
        self.assertEqual(said(odd, host="b"), (NO, 11))

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
