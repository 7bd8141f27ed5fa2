# Recorded from spicy-screenshot of spice-gtk 0.42, the main channel. Then made by hand after the specification: the display channel of a
# session, and a client of version 1.
SAMPLES = (
    bytes.fromhex("52454451 02000000 02000000 1a000000 00000000 01 00 01000000 01000000 12000000 0d000000 0f000000"),
    bytes.fromhex("52454451 02000000 02000000 16000000 a3b1c2d4 02 00 01000000 00000000 12000000 09000000"),
    bytes.fromhex("52454451 01000000 00000000 12000000 00000000 01 00 00000000 00000000 12000000"),
)  # fmt: skip
DECIDED_AT = 8
REFUSED = (
    (b"S", 1), (b"RA", 2), (b"REDIS", 4), (b"REDQ\0", 5), (b"REDQ\3", 5), (b"REDQUEEN", 5), (b"REDQ\2\0\0\1", 8),
)  # fmt: skip
