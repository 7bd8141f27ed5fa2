SAMPLES = (
    # curl 7.88.1: --proxy socks4://, socks4a://, socks4a:// with a user name.
    b"\x04\x01\x1f\x90\xc0\x00\x02\x01\x00",
    b"\x04\x01\x1f\x90\x00\x00\x00\x01\x00192.0.2.1\x00",
    b"\x04\x01\x00P\x00\x00\x00\x01user\x00example.com\x00",
    # netcat-openbsd 1.219: -X 4.
    b"\x04\x01\x00\x16\xc0\x00\x02\x01\x00",
)
START = b"\x04\x01\x00\x50\x01\x02\x03\x04"
# The NUL behind the user ID decides, or the one behind the name of the host.
DECIDED_AT = tuple(len(sample) for sample in SAMPLES)
MATCHED = (
    *((sample + b"SSH-2.0-x\r\n", len(sample)) for sample in SAMPLES),
    # The other command is BIND.
    (b"\x04\x02\x04\x00\x00\x00\x00\x00\x00", 9),
    # A request has at most 520 bytes.
    (START + b"u" * 511 + b"\x00", 520),
)
REFUSED = (
    (b"\x05\x01\x00", 1), (b"\x04\x00\x00\x00\x05", 2), (b"\x04\x03\x00\x50", 2),
    (b"\x04\x01\x00\x00", 4), (b"\x04\x01\x00\x50\x01\x02\x03\x04us\x01er\x00", 11),
    (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", 10),
    (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00", 11),
    # A request of Cassandra's version 4 has flags where the command would be.
    (bytes.fromhex("04 00 00 00 05 00000000"), 2),
    (START + b"u" * 600, 520),
)  # fmt: skip
