EMPTY = bytes(20) + b"\xff" * 4
IDENTITY = b"host::features=shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,apex,abb"


def connect(version: int, largest: int, identity: bytes) -> bytes:
    """Make the message that send_connect of Android's adb makes."""
    numbers = (version, largest, len(identity), sum(identity), 0x4E584E43 ^ 0xFFFFFFFF)
    return b"CNXN" + b"".join(number.to_bytes(4, "little") for number in numbers) + identity


# Made by hand: of the newer and the older version of the protocol, and with the empty message before it.
SAMPLES = (
    connect(0x01000001, 1 << 20, IDENTITY), connect(0x01000000, 4096, b"host::\0"),
    EMPTY + connect(0x01000000, 256 << 10, IDENTITY),
)  # fmt: skip
GOOD = SAMPLES[0]
# The colon behind "host" decides.
DECIDED_AT = (29, 29, 53)
MATCHED = (
    # The identity has 5 to 4096 bytes.
    *(
        (connect(0x01000000, 4096, b"host:".ljust(length)), 29)
        for length in (5, 255, 256, 4095, 4096)
    ),
)
REFUSED = (
    *(
        (b"CNXN\0\0\0\1\0\x10\0\0" + length.to_bytes(4, "little"), 14)
        for length in (4, 4097, 1 << 16)
    ),
    (b"CNXM", 4), (b"CONNECT / HTTP/1.1", 2), (b"CNXN\2", 5), (b"CNXN\0\0\1", 7),
    (GOOD[:11] + b"\1", 12), (GOOD[:20] + b"\xbd", 21), (GOOD[:24] + b"device:", 25),
    (bytes(20) + b"\xff\xff\xff\0", 24), (EMPTY + EMPTY, 25),
    (bytes.fromhex("00000008 04d2162f"), 4),
    (bytes.fromhex("000e38"), 2),
)  # fmt: skip
