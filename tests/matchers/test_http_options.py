from tests.matchers.all_samples import MATCH, NEED_MORE, NO
from tests.matchers.http_samples import HOST_END, LINE_END, PREFACE, REQUEST, with_fields

PROPFIND = b"PROPFIND / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n"
OF_PROXY = b"GET http://u:p@a.example:80/ HTTP/1.1\r\nHost: b\r\n"
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: b\r\n"
HOST = REQUEST.lower().index(b"www.")
TWO_HOSTS = with_fields("Host: a", "Host: b")
LOOKALIKES = [
    with_fields(field)
    for field in ("Host : a", " Host: a", "Host", "X-Host: a", "Hosts: a", "host=a")
]
START, END = b"GET / HTTP/1.1\r\nX: ", b"\r\nHost: a\r\n"
FITS = START + b"x" * (65536 - len(START) - len(END)) + END

VERDICTS = (
    # The version is known at its last digit, and a match at the end of the line.
    ("version=1.1", REQUEST, MATCH, LINE_END), ("version=1.*", REQUEST, MATCH, LINE_END),
    ("version=1.0,2", REQUEST, NO, LINE_END - 2), ("version=1.*", PREFACE, NO, 6),
    # HTTP/2 goes by both its names, and rules out all else at once.
    *((f"version={version}", PREFACE, MATCH, 24) for version in ("2", "2.0", "2*")),
    ("version=2", REQUEST, NO, 1), ("version=2", PROPFIND, NO, 3),
    # The line of a method still has to be a request line.
    ("method=GET,HEAD", REQUEST, MATCH, LINE_END), ("method=PROP*", PROPFIND, MATCH, 21),
    ("method=GET", b"GET / RTSP/1.0\r\n", NO, 7),
    ("method=GET", b"HEAD / HTTP/1.1\r\n", NO, 1), ("method=GET version=1.1", POST, NO, 1),
    ("method=GET", POST, NO, 2), ("method=PUT,GET", POST, NO, 2),
    ("method=UNL?CK", b"UNLINK / HTTP/1.1\r\n", NO, 4),
    # The path is as sent, without the query.
    ("path=/api/*", REQUEST, MATCH, LINE_END), ("path=/api/x", REQUEST, MATCH, LINE_END),
    ("path=/a%2Fb", b"GET /a%2Fb HTTP/1.1\n", MATCH, 20),
    # The first byte that no wanted path has there is a no; so is the end of a path that is too short.
    ("path=/static/*", REQUEST, NO, 6), ("path=/api/xyz", REQUEST, NO, 11),
    ("path=/api/?y,/API/*", REQUEST, NO, 11), ("path=*.html", REQUEST, NO, 11),
    ("path=/api/*", b"GET /api HTTP/1.1\r\n", NO, 9),
    # The path of a target with scheme and host is what follows the host.
    *(
        row
        for target, path in (
            (b"http://example.com/a/b?c", "/a/b"),
            (b"http://example.com", "/"),
            (b"http://example.com?c", "/"),
        )
        for line in [b"GET " + target + b" HTTP/1.1\r\n"]
        for row in (
            (f"path={path}", line, MATCH, len(line)),
            ("path=/x", line, NO, len(target) + 5),
        )
    ),
    # A target without a path is a no where the target ends.
    ("path=*", b"OPTIONS * HTTP/1.1\r\n", NO, 10),
    ("path=*", b"CONNECT example.com:443 HTTP/1.1\r\n", NO, 24),
    ("path=*", b"GET example.com:443 HTTP/1.1\r\n", NO, 20),
    # The end of the Host line decides; case, port, final dot and blanks around it do not count.
    ("host=www.example.com", REQUEST, MATCH, HOST_END),
    ("host=*.example.com", REQUEST, MATCH, HOST_END),
    ("host=*.org", REQUEST, NO, HOST_END),
    ("host=*", REQUEST[: HOST_END - 1], NEED_MORE, HOST_END - 1),
    ("host=example.com", REQUEST, NO, HOST + 1),
    ("host=www.example.org", REQUEST, NO, HOST + len("www.example.c")),
    ("host=WWW.*.org,[::1]", REQUEST, NO, HOST_END),
    # Lines may end with LF alone.
    ("host=a", b"GET / HTTP/1.1\nHost:a\n\n", MATCH, 22),
    # An IPv6 address is asked for without its brackets.
    *(
        ("host=2001:db8::1", with_fields(f"Host: {value}"), MATCH)
        for value in ("[2001:DB8::1]", "[2001:db8::1]:80", "[2001:db8::1]:")
    ),
    # Of several Host fields the first counts, and what is not quite one does not.
    ("host=a", TWO_HOSTS, MATCH), ("host=b", TWO_HOSTS, NO),
    *(("host=a", data, NO, len(data)) for data in LOOKALIKES),
    # An address has many forms; a mapped one is IPv4.
    *(
        (f"host={pattern}", with_fields(f"Host: {value}"), MATCH)
        for pattern, value in (
            ("127.0.0.2", "[::ffff:127.0.0.2]:80"), ("127.0.0.2", "[0:0:0:0:0:FFFF:7f00:2]"),
            ("::ffff:127.0.0.2", "127.0.0.2."), ("127.0.0.*", "[::ffff:127.0.0.2]"),
            ("[::1]", "[0::1]"), ("0:0:0:0:0:0:0:1", "[::1]:8080"),
        )
    ),
    # What comes behind the host is as servers read it: its first colon ends it, and it may be folded.
    *(
        ("host=a", with_fields(f"Host: {value}"), MATCH)
        for value in ("a:b", "a:1:2", "a:80/x", "a\r", "a \t\r", "\r\n a", "\r\n \r\n\ta:80")
    ),
    # Any other value is compared as it is.
    *(
        ("host=a,b,::1", with_fields(f"Host: {value}"), NO)
        for value in ("[::1", "[a]", "b@a", "a/", "a b", "\r\nX: a", "::1")
    ),
    # The end of a head without Host is a no.
    ("host=*", b"GET / HTTP/1.0\r\nA: b\r\n\r\n", NO, 24),
    ("host=*", b"GET / HTTP/1.0\n\nHost: a\n", NO, 16),
    # The host of an absolute target goes before the Host field, and is known earlier; that of CONNECT is its target.
    ("host=a.example", OF_PROXY, MATCH, OF_PROXY.index(b"\n") + 1),
    ("host=b", OF_PROXY, NO, 29),
    ("host=a.example", CONNECT, MATCH, CONNECT.index(b"\n") + 1),
    ("host=b", CONNECT, NO, 22),
    ("host=b", b"CONNECT /x HTTP/1.1\r\nHost: b\r\n\r\n", NO, 11),
    # The Host line ends within 64 KiB.
    ("host=a", FITS, MATCH, 65536),
    ("host=a", FITS.replace(b"X", b"XX"), NO, 65536),
    # All that is asked for has to hold.
    ("method=GET path=/api/* host=*.example.com version=1.1", REQUEST, MATCH, HOST_END),
    ("method=PUT path=/api/* host=*.example.com version=1.1", REQUEST, NO),
    ("method=GET path=/x host=*.example.com version=1.1", REQUEST, NO),
    ("method=GET path=/api/* host=b.example version=1.1", REQUEST, NO),
    ("method=GET path=/api/* host=*.example.com version=1.0", REQUEST, NO),
)  # fmt: skip
UNUSABLE = (
    ("version=1.1,3", "version: '3' matches nothing; possible are 1.0, 1.1, 2, 2.0"),
    *((f"method={one}", f"method: {one!r} matches nothing") for one in ("get", "FETCH", "PRI")),
)
