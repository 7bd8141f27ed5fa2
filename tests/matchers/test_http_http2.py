from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.matchers.http_samples import PREFACE, REQUEST
from tests.wire import http2_builder as h2
from txmux.matchers.http import http
from txmux.wire.http2_opening import OPENING_LIMIT
from txmux.wire.http_head import HEAD_LIMIT, LINE_LIMIT

GET = ((":method", "GET"), (":scheme", "http"), (":path", "/api/x?q=1"))
AUTHORITY = (":authority", "WWW.Example.com.:8080")
NAMED, NAMELESS = h2.opening(*GET, AUTHORITY), h2.opening(*GET)
TWO_NAMES = h2.opening(*GET, (":authority", "a"), ("host", "b"))
CONNECT = h2.opening((":method", "CONNECT"), (":authority", "a:443"))
WAITING = PREFACE + h2.SETTINGS + h2.WINDOW_UPDATE

VERDICTS = (
    # The end of the first HEADERS frame decides.
    *(
        (options, h2.CURL, MATCH, len(h2.CURL))
        for options in ("host=localhost", "path=/api/*", "method=GET host=*")
    ),
    *(
        (options, h2.CURL, NO, len(h2.CURL))
        for options in ("host=a", "path=/", "method=POST host=*")
    ),
    # The host is that of ``:authority``, else of ``host``; without port, case and final dot.
    ("host=*.example.com", NAMED, MATCH),
    ("host=*.example.com", h2.opening(*GET, ("host", AUTHORITY[1])), MATCH),
    ("host=a", TWO_NAMES, MATCH), ("host=b", TWO_NAMES, NO), ("host=*", NAMELESS, NO),
    # The path is that of ``:path``, without the query.
    ("path=/api/x", NAMELESS, MATCH), ("path=*", CONNECT, NO),
    ("host=a method=CONNECT", CONNECT, MATCH),
    # A frame that may not come there is a no.
    ("host=*", PREFACE + h2.PING, NO, 28),
    # nginx serves the host of a request whose names come behind other fields.
    ("host=a", h2.opening((":method", "GET"), ("x", "y"), (":authority", "a:80:80")), MATCH),
    ("host=*", PREFACE.replace(b"SM", b"SN"), NO, 20),
    # A client that waits for the server's SETTINGS is undecided, as it must be: a request may follow.
    *(
        (options, WAITING, NEED_MORE, len(WAITING))
        for options in ("host=a", "path=*", "method=GET")
    ),
    # Without these options it is a match before that, and with a version of HTTP/1 a no.
    ("", PREFACE + h2.SETTINGS, MATCH, 24), ("version=2", PREFACE + h2.SETTINGS, MATCH, 24),
    ("version=1.* host=a", PREFACE + h2.SETTINGS, NO, 6),
    # Both names of the version go with the other options.
    *((f"version={one} host=localhost", h2.CURL, MATCH) for one in ("2", "2.0", "1.1,2")),
    ("version=2 host=*", REQUEST, NO, 1),
)  # fmt: skip
KEYS = tuple(
    ("host=a", data, name)
    for data, name in (
        (b"P", None), (PREFACE, None), (NAMED[:-1], None), (NAMED, "www.example.com"),
        (NAMELESS, ""), (PREFACE + h2.PING, ""), (REQUEST, "www.example.com"), (b"POTs", ""),
    )
)  # fmt: skip
TRIED = ("host=localhost", "path=/api/* version=2", "method=~[PG].*")
TRIED_ON = (h2.CURL, NAMED)


class OptionTests(SynchronousTestCase):
    def test_longest(self) -> None:
        """As much is read as it takes."""
        for options, longest in (
            ({}, LINE_LIMIT), ({"version": "2"}, 24), ({"version": "2", "host": "a"}, OPENING_LIMIT),
            ({"path": "/"}, OPENING_LIMIT), ({"version": "1.*", "path": "/"}, LINE_LIMIT), ({"host": "a"}, HEAD_LIMIT),
        ):  # fmt: skip
            self.assertEqual(http.predicate(options).longest, longest)
