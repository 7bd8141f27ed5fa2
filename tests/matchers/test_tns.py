def connect(version: int, oldest: int, data: bytes, flags: int = 0) -> bytes:
    versions = version.to_bytes(2, "big") + oldest.to_bytes(2, "big")
    fields = versions + bytes.fromhex("0c41 2000 ffff 4f98 0000 0001")
    fields += len(data).to_bytes(2, "big") + b"\x00\x4a" + bytes(46) + data
    return (8 + len(fields)).to_bytes(2, "big") + bytes([0, 0, 1, flags, 0, 0]) + fields


DESCRIPTION = (
    b"(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=db.example.com)(PORT=1521))"
    b"(CONNECT_DATA=(SERVICE_NAME=orclpdb1)(CID=(PROGRAM=python)(HOST=client)(USER=alice))))"
)

# Written after python-oracledb: versions of Oracle 23, 12.2 and 11.2 clients, one that was redirected, and one
# with 256 bytes.
SAMPLES = (
    connect(319, 300, DESCRIPTION), connect(315, 300, DESCRIPTION), connect(314, 300, b""),
    connect(319, 300, DESCRIPTION, flags=4), connect(319, 300, DESCRIPTION.ljust(256 - 74)),
)  # fmt: skip
GOOD = SAMPLES[0]
# The two versions are a match.
DECIDED_AT = 12
REFUSED = (
    (b"\x05", 1), (b"\x00\x21", 2), (b"\x04\x01", 2), (b"\x00\x4a\x01", 3),
    (b"\x00\x4a\x00\x00\x06", 5), (b"\x00\x4a\x00\x00\x01\x40", 6), (GOOD[:6] + b"\x01", 7),
    (GOOD[:8] + b"\x02", 9), (GOOD[:10] + b"\x02", 11), (GOOD[:8] + b"\x01\x2c\x01\x2d", 12),
    (b"\x00\x1d\x00\x00\x01\x00\x00\x01", 2),  # DNS
    (b"\x00\x2d\x00\x00\x01\x00\x00\x01", 8),
    (b"\x00\x2d\xab\xcd\x01\x00", 3),
    (b"\x00\x0e\x38", 2),  # OpenVPN
    (b"\x00\x36\x38", 3),
    (b"\x00\x00\x00\x38\x00\x03\x00\x00user", 2),  # PostgreSQL
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42", 2),  # STUN
    (b"\x03\x00\x00\x13\x0e\xe0", 4),  # RDP
    (b"\x10\x2a\x00\x04MQTT", 1),
    (b"\x00\x2cN\x00", 3),  # Erlang,
)  # fmt: skip
