# Recorded from rpcclient of Samba 4.17.12, from which impacket 0.13.1 does not differ; then made of it: with numbers whose
# greatest byte comes first, and with the flag for signed headers and version 5.1.
BIND = bytes.fromhex(
    "05000b03 10000000 4800 0000 01000000 b810b810 00000000 01000000 00000100 08"
    "83afe11f5dc91191a408002b14a0fa03000000045d888aeb1cc9119fe808002b10486002000000"
)
SAMPLES = (
    BIND, bytes.fromhex("05000b03 00000000 0048 0000 00000001 10b810b8 00000000 01000000"),
    bytes.fromhex("05010b07 10000000 7400 0000 01000000"),
)  # fmt: skip
DECIDED_AT = 10
REFUSED = (
    (b"\4", 1), (b"\5\2", 2), (bytes.fromhex("050000"), 3), (bytes.fromhex("05000e"), 3),
    (bytes.fromhex("05000b01"), 4), (bytes.fromhex("05000b83"), 4),
    (bytes.fromhex("05000b0320"), 5), (bytes.fromhex("05000b031004"), 6),
    (bytes.fromhex("05000b03100001"), 7), (bytes.fromhex("05000b03100000004700"), 10),
    (bytes.fromhex("05000b03000000000047"), 10),
    # SOCKS 5, and Cassandra 5.
    (bytes.fromhex("050100"), 3), (bytes.fromhex("0500000005"), 3),
)  # fmt: skip
