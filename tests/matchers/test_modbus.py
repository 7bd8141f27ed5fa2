# Recorded from mbpoll 1.4.11 (libmodbus 3.1.6): read registers, write a coil; and from pymodbus 3.16.1: read and write
# registers, ask for the identification. Then made by hand after the specification.
SAMPLES = (
    bytes.fromhex("0001 0000 0006 01 03 0000 0002"),
    bytes.fromhex("0001 0000 0006 ff 05 0063 ff00"),
    bytes.fromhex("0001 0000 0006 01 03 0000 000a"),
    bytes.fromhex("0001 0000 000d 11 10 0010 0003 06 000100020003"),
    bytes.fromhex("0001 0000 0005 01 2b 0e0100"),
    bytes.fromhex("beef 0000 0009 01 0f 0013 000a 02 cd01"),
    bytes.fromhex("0000 0000 0006 01 06 0001 0003"),
    bytes.fromhex("0000 0000 000f 01 17 0003 0006 000e 0002 04 00ff00ff"),
    bytes.fromhex("0000 0000 0002 01 11"),
    bytes.fromhex("0000 0000 0006 01 01 0013 07d0"),
    bytes.fromhex("0000 0000 000a 01 14 07 06 0004 0001 0002"),
    bytes.fromhex("0000 0000 000e 01 15 0b 06 0004 0007 0002 06af04be"),
    bytes.fromhex("0501 0000 0006 01 03 0000 0001"),
    # The shortest of pymodbus: what a device is, coil 0 off, register 0 to 0.
    bytes.fromhex("0001 0000 0002 01 11"), bytes.fromhex("0001 0000 0006 01 05 0000 0000"),
    bytes.fromhex("0001 0000 0006 01 06 0000 0000"), bytes.fromhex("0001 0000 0002 00 11"),
)  # fmt: skip
DECIDED_AT = (12, 12, 12, 13, 9, 13, 8, 17, 8, 12, 9, 9, 12, 8, 12, 8, 8)
REFUSED = (
    (bytes.fromhex("0001 01"), 3), (bytes.fromhex("0001 0001"), 4),
    (bytes.fromhex("0001 0000 0001"), 6), (bytes.fromhex("0001 0000 00ff"), 6),
    (bytes.fromhex("0001 0000 01"), 5), (bytes.fromhex("0001 0000 0006 01 00"), 8),
    (bytes.fromhex("0001 0000 0006 01 83"), 8), (bytes.fromhex("0001 0000 0007 01 03"), 8),
    (bytes.fromhex("0001 0000 0006 01 03 0000 0000"), 12),
    (bytes.fromhex("0001 0000 0006 01 03 0000 007e"), 12),
    (bytes.fromhex("0001 0000 0006 01 01 0000 07d1"), 12),
    (bytes.fromhex("0001 0000 0006 01 05 0000 ff01"), 12),
    (bytes.fromhex("0001 0000 0007 01 06"), 8),
    (bytes.fromhex("0001 0000 000d 11 10 0010 007c"), 12),
    (bytes.fromhex("0001 0000 000d 11 10 0010 0003 05"), 13),
    (bytes.fromhex("0001 0000 000e 11 10 0010 0003 06"), 13),
    (bytes.fromhex("0001 0000 000d 11 11"), 8), (bytes.fromhex("0001 0000 0009 01 14"), 8),
    (bytes.fromhex("0001 0000 000a 01 14 06"), 9), (bytes.fromhex("0001 0000 000b 01 15"), 8),
    (bytes.fromhex("0001 0000 0005 01 2b 0f"), 9),
    # Functions for serial lines.
    (bytes.fromhex("0001 0000 0002 01 07"), 8), (bytes.fromhex("0001 0000 0006 01 08"), 8),
    (bytes.fromhex("0001 0000 0002 01 0b"), 8),
    # STUN without attributes, MongoDB, and Radmin.
    (bytes.fromhex("0001 0000 2112a442"), 5), (bytes.fromhex("3b010000 00000000"), 6),
    (bytes.fromhex("01000000 0500"), 5),
)  # fmt: skip
