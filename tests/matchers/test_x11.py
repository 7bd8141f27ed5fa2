SAMPLES = (
    # libX11 1.8.4 with libxcb 1.15 over TCP, with a cookie and without; the last is made by hand, of a big-endian machine.
    bytes.fromhex("6c00 0b00 0000 1200 1000 0000") + b"MIT-MAGIC-COOKIE-1\0\0" + bytes(range(16)),
    bytes.fromhex("6c00 0b00 0000 0000 0000 0000"),
    bytes.fromhex("4200 000b 0000 0000 0000 0000"),
)
# The minor version decides, in either byte order.
DECIDED_AT = 6
MATCHED = (
    # The byte that is not used may have any value.
    (b"l\n\x0b\x00\x00\x00", 6),
)
REFUSED = (
    # Another byte order, another version, and a version in the other byte order are a no.
    (b"L", 1), (b"l\x00\x00\x0b", 3), (b"l\x00\x0a", 3), (b"B\x00\x0b\x00", 3),
    (b"l\x00\x0b\x00\x01", 5), (b"B\x00\x00\x0b\x00\x01", 6),
    # Text is no X11.
    (b"lkf2mztq5xyh3abc7nop4rstu6vwdegijlkq\0", 3), (b"BREW / HTTP/1.1\r\n", 3),
)  # fmt: skip
