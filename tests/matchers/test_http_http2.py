"""The options of the `http` matcher, with HTTP/2."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.http_samples import PREFACE, REQUEST, said
from tests.wire import http2_builder as h2
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.http import http
from txmux.testing import check_predicate
from txmux.wire.http2_opening import OPENING_LIMIT
from txmux.wire.http_head import HEAD_LIMIT, LINE_LIMIT

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

GET = ((":method", "GET"), (":scheme", "http"), (":path", "/api/x?q=1"))
AUTHORITY = (":authority", "WWW.Example.com.:8080")


class RequestTests(SynchronousTestCase):
    """Method, host and path are those of the first HEADERS frame."""

    def test_real(self) -> None:
        """The end of that frame decides."""
        for options in ({"host": "localhost"}, {"path": "/api/*"}, {"method": "GET", "host": "*"}):
            self.assertEqual(said(h2.CURL, **options), (MATCH, len(h2.CURL)))
        for options in ({"host": "a"}, {"path": "/"}, {"method": "POST", "host": "*"}):
            self.assertEqual(said(h2.CURL, **options), (NO, len(h2.CURL)))

    def test_host(self) -> None:
        """It is that of ``:authority``, else of ``host``; without port, case and final dot."""
        for fields in ((*GET, AUTHORITY), (*GET, ("host", AUTHORITY[1]))):
            self.assertIs(said(h2.opening(*fields), host="*.example.com").verdict, MATCH)
        both = h2.opening(*GET, (":authority", "a"), ("host", "b"))
        self.assertIs(said(both, host="a").verdict, MATCH)
        self.assertIs(said(both, host="b").verdict, NO)
        self.assertIs(said(h2.opening(*GET), host="*").verdict, NO)

    def test_path(self) -> None:
        """It is that of ``:path``, without the query."""
        self.assertIs(said(h2.opening(*GET), path="/api/x").verdict, MATCH)
        connect = h2.opening((":method", "CONNECT"), (":authority", "a:443"))
        self.assertIs(said(connect, path="*").verdict, NO)
        self.assertIs(said(connect, host="a", method="CONNECT").verdict, MATCH)

    def test_refused(self) -> None:
        """A frame that may not come there is a no."""
        self.assertEqual(said(PREFACE + h2.PING, host="*"), (NO, 28))
        self.assertEqual(said(PREFACE.replace(b"SM", b"SN"), host="*"), (NO, 20))

    def test_waiting(self) -> None:
        """A client that waits for the server's SETTINGS is undecided, as it must be: a request may follow."""
        data = PREFACE + h2.SETTINGS + h2.WINDOW_UPDATE
        for options in ({"host": "a"}, {"path": "*"}, {"method": "GET"}):
            self.assertEqual(said(data, **options), (NEED_MORE, len(data)))

    def test_not_waiting(self) -> None:
        """Without these options it is a match before that, and with a version of HTTP/1 a no."""
        self.assertEqual(said(PREFACE + h2.SETTINGS), (MATCH, 24))
        self.assertEqual(said(PREFACE + h2.SETTINGS, version="2"), (MATCH, 24))
        self.assertEqual(said(PREFACE + h2.SETTINGS, version="1.*", host="a"), (NO, 3))

    def test_version(self) -> None:
        """Both names of the version go with the other options."""
        for version in ("2", "2.0", "1.1,2"):
            self.assertIs(said(h2.CURL, version=version, host="localhost").verdict, MATCH)
        self.assertEqual(said(REQUEST, version="2", host="*"), (NO, 1))

    def test_longest(self) -> None:
        """As much is read as it takes."""
        for options, longest in (
            ({}, LINE_LIMIT),
            ({"version": "2"}, 24),
            ({"version": "2", "host": "a"}, OPENING_LIMIT),
            ({"path": "/"}, OPENING_LIMIT),
            ({"version": "1.*", "path": "/"}, LINE_LIMIT),
            ({"host": "a"}, HEAD_LIMIT),
        ):
            self.assertEqual(http.predicate(options).longest, longest)


class KeyTests(SynchronousTestCase):
    """The name by which many routes are told apart."""

    def test_host(self) -> None:
        """It is known when the host is, and empty once there will be none."""
        key = getattr(http.predicate({"host": "a"}), "key", None)
        assert key is not None
        named, nameless = h2.opening(*GET, AUTHORITY), h2.opening(*GET)
        for data, name in (
            (b"P", None),
            (PREFACE, None),
            (named[:-1], None),
            (named, "www.example.com"),
            (nameless, ""),
            (PREFACE + h2.PING, ""),
            (REQUEST, "www.example.com"),
            (b"POTS", ""),
        ):
            self.assertEqual(key.read(Peeked(data)), name, data)


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in (
            {"host": "localhost"},
            {"path": "/api/*", "version": "2"},
            {"method": "~[PG].*"},
        ):
            check_predicate(
                http.predicate(options), more=[h2.CURL, h2.opening(*GET, AUTHORITY)], examples=30
            )
