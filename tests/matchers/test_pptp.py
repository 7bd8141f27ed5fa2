# Recorded from pptp 1.10.0 of Debian.
SAMPLES = (
    (
        bytes.fromhex("009c0001 1a2b3c4d 00010000 0100 0000 00000003 00000003 ffff 0001")
        + b"local".ljust(64, b"\0")
        + b"cananian".ljust(64, b"\0")
    ),
)
DECIDED_AT = 12
REFUSED = (
    (b"\0\x9d", 2), (bytes.fromhex("009c0002"), 4), (bytes.fromhex("009c0001 1a2b3c4c"), 8),
    (bytes.fromhex("009c0001 1a2b3c4d 0002"), 10), (bytes.fromhex("009c0001 1a2b3c4d 0001 0001"), 12),
)  # fmt: skip
