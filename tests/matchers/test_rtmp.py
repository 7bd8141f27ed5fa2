# The beginnings of what these send first: rtmpdump 2.4 and curl 7.88.1 (librtmp 2.3); FFmpeg 8, as PyAV 18.1.0 has it; the
# last is made by hand as Flash Player 9 begins.
SAMPLES = (
    bytes.fromhex("03 000aecf0 00000000 67458b6bc6237b3269983c64"),
    bytes.fromhex("03 0020a37e 00000000 67458b6bc6237b3269983c64"),
    bytes.fromhex("03 00000000 09007c02 f778551eceab8e1e362f07c5"),
    bytes.fromhex("03 00018a24 80000702 3b1c9a7de42f0815c66a90b1"),
)
DECIDED_AT = 9
MATCHED = (
    (bytes.fromhex("03 00000001 00000000"), 9), (bytes.fromhex("03 01000100 00000000"), 9),
    (bytes.fromhex("03 0150a37e 00000000"), 9),
)  # fmt: skip
REFUSED = (
    (b"\x06", 1), (b"\x03\0\0\0\0\x01", 6), (b"\x03\0\0\0\0\x21", 6), (b"\x03\0\0\0\0\0\0\x01", 8),
    (b"\x03\0\0\0\0\x80\x01", 7), (b"\x03\0\0\0\0\x80\0\x10", 8),
    # RDP, S7, H.323 and a STARTUP of Cassandra begin with the same byte.
    (bytes.fromhex("03000013 0ee0 0000000000"), 6), (bytes.fromhex("03000016 11e0 0000000100"), 6),
    (bytes.fromhex("03000031 0270 0106000881"), 6), (bytes.fromhex("0300000101 00000016"), 9),
    # Hellos of MongoDB with 259 and 515 bytes, a CONNECT of Oracle, and a request of Modbus: a length is not a time.
    *((bytes.fromhex(f"03{n:02x}0000 01000000 00000000 d4070000"), 4) for n in (1, 2, 3)),
    (bytes.fromhex("03c60000 0100 0000 013f012c"), 4),
    (bytes.fromhex("03db0000 0006 0103 0000 0001"), 4),
    # An OpenVPN client with --tls-crypt-v2; no player has such a version.
    (bytes.fromhex("031950 a1b20900c3d4e5f6 00000001"), 6),
    (bytes.fromhex("03 00000000 091f7c02"), 7),
)  # fmt: skip
