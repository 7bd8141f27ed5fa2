KEY = bytes.fromhex(
    "3f9a 04c1 77e2 5b80 d613 2ea5 48fb 900c 6d31 b7e8 1c52 af06 89d4 7e23 c55f 6a1b"
)


def authentication(name: bytes, parity: int = 1) -> bytes:
    body = name + b"\0" + KEY + bytes([parity])
    return bytes([len(body), 6]) + body


# Made by hand as Margin Research's winbox.py sends it; the same to a router as an agent; and the request that is the
# first of WinBox according to that program, in clear and framed as pywinbox does.
SAMPLES = (
    authentication(b"admin"),
    authentication(b"admin+r", parity=0),
    bytes.fromhex(
        "2f01 002d 4d32 0500ff01 0600ff0901 0700ff0907 0100ff8802000d00000004000000"
        "0200ff88020000000000 0b000000"
    ),
)
LONGEST = authentication(b"n" * 221)
GOOD = SAMPLES[0]
MATCHED = (
    # The parity of the key decides.
    *((sample, len(sample)) for sample in SAMPLES[:2]),
    (LONGEST, 257),
    # The magic behind the lengths decides.
    (SAMPLES[2], 6),
    (bytes.fromhex("ff01 0120 4d32"), 6),
)
REFUSED = (
    (b"\x0d", 1), (b"\x27\x05", 2), (b"\x22\x06", 2), (GOOD[:4] + b"\x00", 5), (GOOD[:7] + b"x", 8),
    (GOOD[:-1] + b"\x02", len(GOOD)),
    # Lengths that do not agree, and the lack of the magic, are a no.
    *(
        (bytes.fromhex(data), at)
        for data, at in (("6801 01", 3), ("6801 0067", 4), ("ff01 00fc", 4), ("6801 0066 4d33", 6))
    ),
    # Text, TLS, SOCKS, TDS and the like are a no at the second byte or soon after.
    (b"SSH-2.0-x\r\n", 2), (b"GET / HTTP/1.1\r\n", 2), (bytes.fromhex("16 03 01 02 00 01"), 2),
    (bytes.fromhex("05 01 00"), 1), (bytes.fromhex("04 01 00 50 01 02 03 04 00"), 1),
    (bytes.fromhex("12 01 00 2f 00 00 01 00"), 4), (bytes.fromhex("80 01 00 01"), 4),
)  # fmt: skip
