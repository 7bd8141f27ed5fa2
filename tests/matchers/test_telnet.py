# The first bytes of Linux' telnet to port 23, and of PuTTY, as public captures have them.
SAMPLES = (
    bytes.fromhex("fffd03 fffb18 fffb1f fffb20 fffb21 fffb22 fffb27 fffd05 fffb23"),
    bytes.fromhex("fffb1f fffb20 fffb18 fffb27 fffd01 fffb03 fffd03"),
)
# WILL or DO and an option are enough.
DECIDED_AT = 3
MATCHED = (*((bytes([0xFF, 0xFB, option]), 3) for option in (0x00, 0x31, 0x8A, 0x8C, 0xFF)),)
REFUSED = (
    # Other commands and unknown options are a no.
    *(
        (bytes.fromhex(data), at)
        for data, at in (
            ("fefb", 1), ("fffc01", 2), ("fffe01", 2), ("fffa18", 2), ("fff4", 2), ("fffb32", 3),
            ("fffd8d", 3),
        )
    ),
    # ZeroMQ, text in UTF-16 and MP3 are no Telnet.
    (bytes.fromhex("ff 0000000000000001 7f"), 2),
    ("1".encode("utf-16"), 2),
    (bytes.fromhex("fffb9064"), 3),
)  # fmt: skip
