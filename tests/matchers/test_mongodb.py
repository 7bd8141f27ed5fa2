def message(opcode: int, body: bytes, request: int = 1, answered: int = 0) -> bytes:
    numbers = (16 + len(body), request, answered, opcode)
    return b"".join(number.to_bytes(4, "little") for number in numbers) + body


def document(elements: bytes) -> bytes:
    return (4 + len(elements) + 1).to_bytes(4, "little") + elements + b"\x00"


IS_MASTER = document(b"\x10ismaster\x00\x01\x00\x00\x00\x08helloOk\x00\x01")
HELLO = document(b"\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00")


def hello_of(size: int) -> bytes:
    rest = len(message(2004, bytes(4) + b"admin.$cmd\x00" + bytes(8) + _with_platform(0)))
    return message(
        2004, bytes(4) + b"admin.$cmd\x00" + bytes(4) + b"\xff" * 4 + _with_platform(size - rest)
    )


def _with_platform(size: int) -> bytes:
    platform = b"\x02platform\x00" + (size + 1).to_bytes(4, "little") + b"x" * size + b"\x00"
    return document(b"\x10ismaster\x00\x01\x00\x00\x00\x03client\x00" + document(platform))


QUERY = message(2004, bytes(4) + b"admin.$cmd\x00" + bytes(4) + b"\xff\xff\xff\xff" + IS_MASTER)

# Written after the specification: the handshake of drivers without and with serverApi.
SAMPLES = (
    QUERY, message(2013, bytes(4) + b"\x00" + HELLO, request=0x6B8B4567),
    message(2013, b"\x00\x00\x01\x00\x00" + HELLO, request=0),
    # Of the lengths with which SOCKS 5 and RTMP begin, too.
    hello_of(261), hello_of(259), hello_of(515),
    # The beginnings of what PyMongo 4.20.0 sends, without and with a version of the API.
    b"J\x01\x00\x00gE\x8bk\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x005\x01\x00\x00\x10ismaster\x00\x01",
    b"O\x01\x00\x00gE\x8bk\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00:\x01\x00\x00\x10hello\x00\x01",
)  # fmt: skip
# The header is a match.
DECIDED_AT = 16
REFUSED = (
    (b"\x19\x00\x00\x00", 2), (b"\x40\x00\x01", 3), (b"\x00\x80\x00\x00", 2), (b"\xff\xfd\x00", 2),
    (b"\x40\x00\x00\x01", 4), (message(2013, bytes(30), answered=1), 9),
    (message(2013, bytes(30), answered=1 << 31), 12), (message(2012, bytes(30)), 13),
    (message(2013 | 1 << 16, bytes(30)), 15), (message(2013 | 1 << 31, bytes(30)), 16),
    # Text, TLS and lengths with the most significant byte first are a no.
    (b"GET / HTTP/1.1\r\n", 3), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 3),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 2), (b"\x00\x1d\xab\xcd\x01\x00", 3),
    (b"\x30\x0c\x02\x01\x01\x60\x07", 3),
)  # fmt: skip
