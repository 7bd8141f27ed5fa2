# The beginnings of what these send: echoscu of DCMTK 3.6.7, and pynetdicom 3.0.4.
SAMPLES = (
    bytes.fromhex("0100 000000cd 0001 0000") + b"ANY-SCP         ECHOSCU         " + bytes(32),
    bytes.fromhex("0100 00000119 0001 0000") + b"PACS            STORESCU        " + bytes(32),
)
DECIDED_AT = 11
REFUSED = (
    (b"\2", 1), (b"\1\1", 2), (bytes.fromhex("0100 00000043"), 6), (bytes.fromhex("0100 01"), 3),
    (bytes.fromhex("0100 000000cd 0002"), 8), (bytes.fromhex("0100 000000cd 0001 0001"), 10),
    (bytes.fromhex("0100 000000cd 0001 0000 00"), 11),
    # Radmin, and Raft.
    (bytes.fromhex("0100000005000002"), 8), (bytes.fromhex("0100000000000000"), 6),
)  # fmt: skip
