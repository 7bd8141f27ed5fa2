# Recorded from mod_proxy_ajp of Apache 2.4.71: a request, and the CPing of ping=1; then as a server begins that speaks HTTP/2.
SAMPLES = (
    bytes.fromhex("123400b8 0202 0008") + b"HTTP/1.1\0\0\x06/a.php\0\0\x09127.0.0.1\0\xff\xff\0",
    bytes.fromhex("12340001 0a"),
    bytes.fromhex("123400b8 02ff 0008") + b"HTTP/2.0\0\0\1/\0\0\x09127.0.0.1",
)
DECIDED_AT = (13, 5, 13)
REFUSED = (
    (b"\x12\1", 2), (bytes.fromhex("12340000"), 4), (bytes.fromhex("1234fffd"), 4),
    (bytes.fromhex("12340001 02"), 5), (bytes.fromhex("12340002 0a"), 5),
    (bytes.fromhex("123400b8 0200"), 6), (bytes.fromhex("123400b8 021c"), 6),
    (bytes.fromhex("123400b8 0202 0009"), 8), (bytes.fromhex("123400b8 0202 0008") + b"RTSP", 9),
    # From the container to the server.
    (b"AB\0\1\x09", 1),
)  # fmt: skip
