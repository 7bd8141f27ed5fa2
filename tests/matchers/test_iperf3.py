# The first is recorded from iperf 3.12, the others are made as it makes them.
SAMPLES = (
    b"7bf6iz6sdmpw42tk4idlacqpi7enezcmsxzr\x00", b"kzv4f7a3dmiq6qyb5jvxo2twd3pyqkz2hxlr\x00",
    b"2z7ouqrpjb4xe6m5wq3nqhyfd7ivkac3tsgl\x00\x09",
)  # fmt: skip
COOKIE = SAMPLES[0][:36]
# A cookie with the NUL that ends it is a match.
DECIDED_AT = 37
REFUSED = (
    (b"KZV4", 1), (b"1abc", 1), (b"ab8", 3), (COOKIE[:35] + b"\x00", 36), (COOKIE + b"a\x00", 37),
    # Text protocols in lower case have a blank or the end of a line in time; X11 has a NUL.
    (b"get " + b"a" * 40, 4), (b"ping\r\n", 5), (b"l\x00\x0b\x00", 2),
)  # fmt: skip
UNDECIDED = (b"ruok",)
