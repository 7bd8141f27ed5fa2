CLI = b"*2\r\n$7\r\nCOMMAND\r\n$4\r\nDOCS\r\n"
# The first two are recorded from redis-cli 7.0.15, interactive and with a command; the others are what people type.
SAMPLES = (
    CLI, b"*1\r\n$4\r\nPING\r\n", b"*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n", b"PING\r\n",
    b"get key\r\n", b"INFO server\r\n", b"AUTH secret\r\n", b"QUIT\r\n", b"client list\r\n",
)  # fmt: skip
MATCHED = (
    # The headers of the array and of its first string are enough.
    (CLI, 8), (b"*1234567\r\n$123456789\r\n", 22),
    # A line that begins with a command is a match at its end.
    (b"PING\r\n", 6), (b"ping\n", 5), (b"GET foo\r\nGET bar\r\n", 9), ("set café 1\n".encode(), 12),
    # Up to two empty lines may come before an array.
    (b"\r\n*1\r\n$4\r\nPING\r\n", 10), (b"\r\n\r\n" + CLI, 12),
    # A key may be anything else.
    (b"GET https:x\n", 12), (b"get /key\n", 9), (b"SET sip/2 1\n", 12), (b"CLIENT KILL 1\r\n", 15),
    (b"HELLO\r\n", 7), (b"hello 3 AUTH default x\r\n", 24),
    # A line has at most 1024 bytes.
    (b"GET " + b"a" * 1019 + b"\n", 1024),
)  # fmt: skip
REFUSED = (
    (b"*\r\n", 2), (b"*-1\r\n", 2), (b"*2\n", 3), (b"*2\r\r", 4), (b"*2\r\n:1\r\n", 5),
    (b"*2\r\n$\r\n", 6), (b"*2\r\n$4\n", 7), (b"*2\r\n$4\r4", 8), (b"*12345678\r\n", 9),
    (b"*1\r\n$1234567890\r\n", 15),
    (b"EHLO example.com\r\n", 2), (b"GETX foo\r\n", 4), (b"PIN 1\r\n", 4), (b"PINGS", 5),
    (b"\r\nP", 3), (b"\rX", 2), (b"\r\n\r\n\r", 5), (b"\r\n\r\n\0\r\nQUIT\n", 5), (b"\n", 1),
    (b" PING\r\n", 1), (b"SSH-2.0-x\r\n", 3), (b"POST / HTTP/1.1\r\n", 2),
    # A control character in the line is a no, and so is a CR without LF.
    (b"GET a\x00b\n", 6), (b"GET a\tb\n", 6), (b"GET a\x7f\n", 6), (b"GET a\rb\n", 7),
    (b"GET a\r\r\n", 7),
    # What begins as a request of HTTP, or has its name and a slash, is a no at that byte, whatever follows.
    (b"GET /weather HTTP/1.0.8\r\n", 5), (b"GET /", 5), (b"GET / HTTP/1.", 5),
    (b"GET http://example.com/ HTTP/1.1\r\n", 11), (b"COPY https://example.com/ HTTP/1.1\r\n", 13),
    (b"GET * HTTP/1.1\r\n", 11), (b"ECHO x HTTP/", 12), (b"ECHO xHTTP/1\r\n", 11),
    (b"SUBSCRIBE sip:a@example.com SIP/2.0\r\n", 32), (b"INFO rtsp://example.com RTSP/1.0\r\n", 29),
    (b"COPY icap://example.com ICAP/1.0\r\n", 29), (b"MOVE x ICE/1.0\r\n", 11),
    # A client of DICT, as `curl dict://` is.
    (b"CLIENT libcurl 7.88.1\r\nDEFINE ! x\r\nQUIT\r\n", 10), (b"CLIENT LI\r\n", 10),
    (b"CLIENT\r\n", 7),
    # As sslh's test of `anyprot` begins.
    (b"hello anyprot this needs to be longer", 7),
    (b"GET " + b"a" * 1020 + b"\n", 1024),
)  # fmt: skip
