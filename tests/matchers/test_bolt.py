# Recorded from the driver neo4j 6.0 for Python; then as older drivers begin.
SAMPLES = (
    bytes.fromhex("6060b017 000001ff 00080805 00020404 00000003"),
    bytes.fromhex("6060b017 00000004 00000003 00000002 00000001"),
)
DECIDED_AT = 4
REFUSED = ((b"\x60\x61", 2), (b"\x60\x60\xb0\x18", 4), (b"GET", 1))
