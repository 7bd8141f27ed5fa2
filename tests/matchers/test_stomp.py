# The examples of STOMP 1.2, and a client of 1.0.
SAMPLES = (
    b"CONNECT\naccept-version:1.0,1.1,1.2\nhost:stomp.github.org\n\n\x00",
    b"STOMP\r\naccept-version:1.2\r\nhost:/\r\nheart-beat:0,0\r\n\r\n\x00",
    b"CONNECT\nlogin:guest\npasscode:guest\n\n\x00\n",
)
# Its LF is a match.
DECIDED_AT = tuple(sample.index(b"\n") + 1 for sample in SAMPLES)
MATCHED = ((b"CONNECT\r\n", 9),)
REFUSED = (
    # The first other byte is a no, as with HTTP.
    (b"CONNECT example.com:443 HTTP/1.1\r\n", 8), (b"CONNECTED\n", 8), (b"SEND\n", 2),
    (b"SSH-2.0-OpenSSH\r\n", 2), (b"STOMP\r\r", 7), (b"connect\n", 1), (b"\nCONNECT\n", 1),
)  # fmt: skip
