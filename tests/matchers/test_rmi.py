# Recorded from the registry's client in OpenJDK 17.0.15, which waits then; the others are made by hand after the specification.
SAMPLES = (b"JRMI\0\2\x4b", b"JRMI\0\2\x4c\x50\xac\xed\0\5", b"JRMI\0\1\x4d")
DECIDED_AT = 7
REFUSED = (
    (b"JRMJ", 4), (b"JDWP-Handshake", 2), (b"JRMI\1", 5), (b"JRMI\0\0", 6), (b"JRMI\0\3", 6), (b"JRMI\0\2\x4e", 7),
)  # fmt: skip
