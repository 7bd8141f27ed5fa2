# Recorded from jdb of OpenJDK 17.0.15.
SAMPLES = (b"JDWP-Handshake",)
DECIDED_AT = 14
MATCHED = ((b"JDWP-Handshake\x00\x00\x00\x0b", 14),)
REFUSED = (
    (b"jdwp-", 1), (b"JOIN #a\r\n", 2), (b"JDWP-handshake", 6),
)  # fmt: skip
