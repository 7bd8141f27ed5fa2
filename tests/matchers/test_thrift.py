# Recorded from thrift 0.25.0 of PyPI: the binary and the compact protocol, and both in frames. Then made by hand after the
# specification: oneway calls, and a sequence number and a name of two bytes.
SAMPLES = (
    bytes.fromhex("80010001 00000004") + b"ping" + bytes(5), bytes.fromhex("822100 04") + b"ping\0",
    bytes.fromhex("00000011 80010001 00000004") + b"ping" + bytes(5), bytes.fromhex("00000009 822100 04") + b"ping\0",
    bytes.fromhex("80010004 00000003") + b"log" + bytes(5), bytes.fromhex("8281 ac02 8101") + b"a" * 129 + b"\0",
)  # fmt: skip
DECIDED_AT = (9, 5, 13, 9, 9, 7)
REFUSED = (
    (b"\x80\2", 2), (b"\x80\1\0\2", 4), (b"\x80\1\0\1\0\0\1", 7), (b"\x80\1\0\1\0\0\0\0", 8),
    (b"\x80\1\0\1\0\0\0\1 ", 9), (b"\x82\x41", 2), (b"\x82\x22", 2), (b"\x82\x21\0\0", 4),
    (b"\x82\x21\xff\xff\xff\xff\xff", 7), (b"\0\0\0\x11\x80\2", 6), (b"\0\0\0\x11\x0f\xff", 5),
    (b"\1", 1),
    # The old binary protocol, SSL 2.0, memcached and SunRPC.
    (b"\0\0\0\4ping", 5), (bytes.fromhex("802e0103"), 2), (b"\x82\x21\1\3\1", 5),
    (bytes.fromhex("800c0008"), 2), (bytes.fromhex("80000058"), 2),
)  # fmt: skip
