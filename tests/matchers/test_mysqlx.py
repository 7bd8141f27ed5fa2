def message(kind: int, body: bytes) -> bytes:
    return (1 + len(body)).to_bytes(4, "little") + bytes([kind]) + body


# Recorded from MySQL Connector/Python (mysqlx) 26.10; then from Connector/Node.js 8.0.35: with the attributes of a session (the
# beginning), for TLS, and with neither. Then an AuthenticateStart made by hand.
SAMPLES = (
    bytes.fromhex("01000000 01"),
    bytes.fromhex("19010000 02 0a9502 0a9202 0a15") + b"session_connect_attrs\x12\xf8\x01\x08\x02\x1a\xf3\x01\n\x17\n\x04_pid",
    bytes.fromhex("14000000 02 0a11 0a0f 0a03 746c73 1208 0801 1204 0807 4001"), bytes.fromhex("03000000 02 0a00"),
    message(4, b"\n\7MYSQL41\x12\0\x1a\0"),
)  # fmt: skip
DECIDED_AT = (5, 34, 14, 7, 14)
REFUSED = (
    # Lengths that do not agree, types that come later, and names that are none.
    (b"\2\0\0\0\1", 5), (b"\1\0\0\1", 4), (b"\1\0\0\0\2", 5), (b"\1\0\0\0\3", 5), (b"\5\0\0\0\x0c", 5),
    (b"\x14\0\0\0\2\x12", 6), (b"\x14\0\0\0\2\n\x10", 7), (b"\x14\0\0\0\2\n\x12", 7),
    (b"\x14\0\0\0\2\n\x11\n\x10", 9), (b"\x14\0\0\0\2\n\x11\n\x0f\n\x0e", 11),
    (b"\x14\0\0\0\2\n\x11\n\x0f\n\0", 11), (b"\x14\0\0\0\2\n\x11\n\x0f\n\3t ", 13),
    (message(4, b"\n\x41" + b"A" * 65), 7), (b"\x14\0\0\0\2\n\x80\x80\x80", 9),
    # A client of MySQL's older protocol: its number and its capabilities.
    (bytes.fromhex("20000001 85"), 4),
)  # fmt: skip
