# Recorded from pyzmq 27 (libzmq 4.3.5), which then waits; then as ZMTP leaves the length open.
SAMPLES = (
    bytes.fromhex("ff00000000000000017f"), bytes.fromhex("ff00000000000000007f"),
    bytes.fromhex("ff00000000000000057f 03"),
)  # fmt: skip
DECIDED_AT = 10
REFUSED = (
    (b"\x01", 1),
    # Telnet, and BGP.
    (b"\xff\xfb", 2), (b"\xff\xff", 2), (bytes.fromhex("ff000000000001"), 7),
    (bytes.fromhex("ff00000000000002"), 8), (bytes.fromhex("ff000000000000000180"), 10),
)  # fmt: skip
