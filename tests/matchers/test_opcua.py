# Recorded from asyncua 2.1.0; the second is made by hand after the specification, with the largest address.
SAMPLES = (
    bytes.fromhex("48454c46 40000000 00000000 ffffff7f ffffff7f 00000000 00000000 20000000")
    + b"opc.tcp://127.0.0.1:45249/server",
    bytes.fromhex("48454c46 20100000 00000000 ffff0000 ffff0000 00000000 00000000 00100000"),
    bytes.fromhex("48454c46 00020000 00000000 ffff0000 ffff0000 00000000 00000000 e0010000"),
)
DECIDED_AT = 12
REFUSED = (
    (b"HELO example.com", 4), (b"HELF\x1f\0", 6), (b"HELF\x21\x10", 6), (b"HELF\0\x11", 6),
    (b"HELF\x40\0\1", 7), (b"HELF\x40\0\0\0\1", 9), (b"RHEF", 1), (b"OPNF", 1), (b"ACKF", 1),
)  # fmt: skip
