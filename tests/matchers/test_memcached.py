def binary(opcode: int, key: bytes = b"", extras: bytes = b"") -> bytes:
    body = extras + key
    lengths = len(key).to_bytes(2, "big") + bytes([len(extras), 0, 0, 0])
    return bytes([0x80, opcode]) + lengths + len(body).to_bytes(4, "big") + bytes(12) + body


# Written after the two specifications, but for those of libmemcached.
SAMPLES = (
    b"get greeting\r\n",  # memccat of libmemcached 1.1.4
    b"gets a b c\r\n", b"gat 60 greeting\r\n", b"set greeting 0 0 5\r\nhello\r\n",
    b"add session:42 1 -1 2 noreply\r\nok\r\n", b"cas greeting 0 0 5 1234567\r\nhello\r\n",
    b"incr hits 1\r\n", b"touch greeting 60\r\n", b"delete greeting\r\n", b"mg greeting v t\r\n",
    b"ms greeting 5 T60\r\nhello\r\n", b"mn\r\n", b"stats\r\n", b"stats items\r\n",
    b"version\r\n",  # memcstat of libmemcached 1.1.4
    b"\x80\x0c\x00\x08"
    + bytes(7)
    + b"\x08\0\1"
    + bytes(10)
    + b"greeting",  # memccat --binary of it
    binary(0x0B), binary(0x00, b"Hello"), binary(0x01, b"Hello", bytes(8)), binary(0x20),
    binary(0x21, b"PLAIN"),
)  # fmt: skip

MATCHED = (
    # The blank or the end of the line behind the arguments that have to be there is a match.
    (b"get a\r\n", 7), (b"get a\n", 6), (b"get a b", 6), (b"set a 0 0 5\r\n", 13),
    (b"set a 0 0 5 noreply\r\n", 12), (b"incr a 1\r\n", 10), (b"stats\r\n", 7),
    (b"get " + b"k" * 250 + b"\r\n", 256),
    # The length of the body is a match.
    *((sample, 12) for sample in SAMPLES[-5:]),
)  # fmt: skip
GOOD, KEY, NUMBER = b"\x80\x00\x00\x05\x00", b"\x00\x05", bytes(3)
REFUSED = (
    (b"GET a\r\n", 1), (b"getx a\r\n", 4), (b"get \r\n", 5), (b"get a\rb", 7),
    (b"set a x 0 5\r\n", 7), (b"set a 0 0\r\n", 10), (b"delete\r\n", 7),
    (b"get " + b"k" * 251, 255), (b"stats\t", 6),
    # Commands of Redis that have other arguments, and words of ZooKeeper, are a no.
    (b"set greeting hello\r\n", 14), (b"append greeting hello\r\n", 17), (b"incr hits\r\n", 10),
    (b"ping\r\n", 2), (b"stat\n", 5), (b"ruok", 2), (b"mntr", 3), (b"GET / HTTP/1.1\r\n", 1),
    (b"\x81\x00", 1), (b"\x80\x25", 2), (b"\x80\x00\x00\xfb", 4), (b"\x80\x1f", 2),
    (b"\x80\x00\x00\x05\x01", 5), (b"\x80\x00\x00\x05\x00\x01", 6),
    (b"\x80\x00\x00\x05\x00\x00\x01", 7), (b"\x80\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x04", 12),
    (b"\x80\x01\x00\x05\x08\x00\x00\x00\x50", 9),
    # A key, extras or a value that an opcode does not have, and a lack of those it must have, are a no.
    (b"\x80\x00\x00\x00", 4),  # get without a key
    (GOOD + NUMBER + b"\x00\x00\x00\x06", 12),  # get with a value
    (b"\x80\x00" + KEY + b"\x04", 5),  # get with extras
    (b"\x80\x01" + KEY + b"\x00", 5),  # set without extras
    (b"\x80\x05" + KEY + b"\x14" + NUMBER + b"\x00\x00\x00\x1a", 12), (b"\x80\x07\x00\x01", 4),
    (b"\x80\x0a\x00\x00\x01", 5), (b"\x80\x0b\x00\x00\x00" + NUMBER + b"\x00\x00\x00\x01", 12),
    # The hello of SSL 2.0, Thrift, Cisco's Skinny and SunRPC can begin with the same byte.
    (b"\x80\x2e\x01\x03\x01\x00\x15", 2), (b"\x80\x1c\x01\x03\x01\x00\x03", 3),
    (b"\x80\x01\x00\x01\x00\x00\x00\x04ping", 5),
    (b"\x80\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00", 4),
    (bytes.fromhex("80000058 00000000 00000000 00000002"), 12),
)  # fmt: skip
