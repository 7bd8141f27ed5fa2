from tests.matchers.asking import from_hex, rows_from_hex

# Recorded from pulsar-client 3.8 for Python; then one with a token of 200 bytes, and the shortest, made by hand.
SAMPLES = from_hex(
    "0000002900000025080212210a1150756c7361722d4350502d76342e322e3020142a046e6f6e65520408011001",
    "000000e1 000000dd 0802 12d801 0a0378782d 2a05 746f6b656e 1ac801" + 200 * "74",
    "0000000b 00000007 0802 1203 0a0178",
)
DECIDED_AT = (13, 14, 13)
REFUSED = rows_from_hex(
    ("0000000a", 4), ("00100004", 4), ("00000029 00000026", 8),
    # Another command, a length that does not fit or has too many bytes, and no version.
    ("00000029 00000025 0803", 10), ("00000029 00000025 0802 1a", 11), ("00000029 00000025 0802 12 20", 12),
    ("00000029 00000025 0802 12 808080", 14), ("00000029 00000025 0802 12 21 12", 13),
)  # fmt: skip
