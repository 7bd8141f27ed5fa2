from tests.matchers.asking import from_hex

# The example of [MS-TDS] 4.1, that of [MS-SSTDS] 4.1, and one with another packet number; the last is recorded from tsql of
# FreeTDS 1.3.17.
SAMPLES = from_hex(
    "1201002f000001000000 1a0006 01 0020 0001 02 0021 0001 03 0022 0004 04 0026 0001 ff"
    "09000000 0000 01 00 b80d0000 01",
    "1201003400000100 00 0015 0006 01 001b 0001 02 001c 000c 03 0028 0004 ff"
    "080001550000 00 4d5353514c53657276657200 80190000",
    "1201001a00000000 00 000b 0006 01 0011 0001 ff 090000000000 02",
    "1201003a00000000 00001a0006 0100200001 020021000c 03002d0004 0400310001 ff 090000000000 00"
    "4d5353514c536572766572 00ab46000000",
)
GOOD = SAMPLES[0]
# The first option is a match.
DECIDED_AT = 13
REFUSED = (
    (b"\x10\x01", 1), (b"\x12\x00", 2), (b"\x12\x01\x80", 3), (b"\x12\x01\x00\x13", 4), (GOOD[:7] + b"\x01", 8),
    (GOOD[:8] + b"\x01", 9), (GOOD[:9] + b"\x00\x05", 11), (GOOD[:9] + b"\x00\x22", 11), (GOOD[:11] + b"\x00\x07", 13),
)  # fmt: skip
