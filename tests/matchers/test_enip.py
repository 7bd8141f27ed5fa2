# Recorded from pycomm3 1.2.14: it registers a session; the others are made by hand after packet-enip.c of Wireshark.
SAMPLES = (
    bytes.fromhex("6500 0400 00000000 00000000 5f7079636f6d6d5f 00000000 0100 0000"),
    bytes.fromhex("6300 0000 00000000 00000000 0000c1debed10000 00000000"),
    bytes.fromhex("0400 0000 00000000 00000000 0000000000000000 00000000"),
)
DECIDED_AT = (28, 24, 24)
DATAGRAMS = SAMPLES[1:]
REFUSED = (
    (b"POST", 1), (b"e ", 2),
    # A session that has been registered, and data in it.
    (bytes.fromhex("6f00"), 1), (bytes.fromhex("6500 0000"), 3), (bytes.fromhex("6300 0400"), 3),
    (bytes.fromhex("6500 0400 01"), 5), (bytes.fromhex("6500 0400 00000000 01"), 9),
    (SAMPLES[0][:20] + b"\1", 21), (SAMPLES[0][:24] + b"\2", 25),
)  # fmt: skip
# A device is asked by datagrams, too.
REFUSED_DATAGRAMS = (DATAGRAMS[0][:23], b"c")
