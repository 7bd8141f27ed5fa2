# Recorded from smpplib 2.2.4, as transceiver and transmitter; the receiver without a name is made by hand after the
# specification.
SAMPLES = (
    bytes.fromhex("00000022 00000009 00000000 00000002") + b"login\0secret\0\x004\0\0\0",
    bytes.fromhex("00000022 00000002 00000000 00000002") + b"login\0secret\0\x004\0\0\0",
    bytes.fromhex("00000017 00000001 00000000 00000001") + b"\0\0\0\x34\0\0\0",
)
DECIDED_AT = 17
REFUSED = (
    (bytes.fromhex("00000016"), 4), (bytes.fromhex("00000100"), 3),
    (bytes.fromhex("00000022 80"), 5), (bytes.fromhex("00000022 00000003"), 8),
    (bytes.fromhex("00000022 0000000b"), 8), (bytes.fromhex("00000022 00000009 00000001"), 12),
    (bytes.fromhex("00000022 00000009 00000000 00000000"), 16),
    (bytes.fromhex("00000022 00000009 00000000 80"), 13),
    (bytes.fromhex("00000022 00000009 00000000 00000002 09"), 17),
    # PostgreSQL, and Kafka.
    (bytes.fromhex("00000022 00030000"), 6),
    (bytes.fromhex("0000002b 00120003"), 6),
)  # fmt: skip
