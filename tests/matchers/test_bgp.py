# The beginning of what ExaBGP 5.0 sends, and all of what GoBGP 3.10 does.
SAMPLES = (
    b"\xff" * 16 + bytes.fromhex("00d1 01 04 fbf4 00b4 c0000201 b4 0206 0104 0001 0001"),
    b"\xff" * 16
    + bytes.fromhex(
        "003b 01 04 fbf4 005a c0000201 1e 021c 020049040272310001040001000141040000fbf40506000100010002"
    ),
)
MARKER = b"\xff" * 16
DECIDED_AT = 20
REFUSED = (
    (b"\xff\xfb\x18", 2), (b"\xff\x00", 2), (b"\xff" * 17, 17), (MARKER + b"\x10\x01", 18),
    (MARKER + b"\x00\x1c", 18),
    # A KEEPALIVE, and version 3.
    (MARKER + b"\x00\x1d\x04", 19),
    (MARKER + b"\x00\x1d\x01\x03", 20),
)  # fmt: skip
