SAMPLES = (
    # curl 7.88.1: --proxy socks5://, without and with a user name; netcat-openbsd 1.219: -X 5.
    b"\x05\x02\x00\x01", b"\x05\x03\x00\x01\x02", b"\x05\x01\x00",
)  # fmt: skip
METHODS = bytes([0, 1, 2, 3, 5, 6, 7, 8, 9, 0x80, 0xA0, 0xFE])
# The last method decides, whatever follows it.
DECIDED_AT = tuple(len(sample) for sample in SAMPLES)
MATCHED = (
    *((sample + b"\x05\x01\x00", len(sample)) for sample in SAMPLES),
    # All assigned methods and some private ones can be offered at once.
    (b"\x05\x0c" + METHODS, 14),
)
REFUSED = (
    # No methods, too many, unknown ones and the same one again are a no.
    (b"\x04\x01", 1), (b"\x05\x00", 2), (b"\x05\x0d", 2), (b"\x05\x01\x04", 3),
    (b"\x05\x02\x00\x0a", 4), (b"\x05\x01\xff", 3), (b"\x05\x02\x00\x00", 4),
    # Requests of Cassandra's version 5, with and without the flag of a beta version.
    (bytes.fromhex("05 00 0000 05 00000000"), 2), (bytes.fromhex("05 10 0000 05 00000000"), 2),
    # DNP3.
    (bytes.fromhex("0564 05c9"), 2),
)  # fmt: skip
