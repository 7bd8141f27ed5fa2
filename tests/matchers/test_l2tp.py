# Recorded from xl2tpd 1.3.18; then version 3, made by hand after RFC 3931.
DATAGRAMS = (
    bytes.fromhex(
        "c8020063000000000000000080080000000000018008000000020100800a000000030000000380"
        "0a000000040000000000080000000606908008000000076c6300130000000878656c6572616e63"
        "652e636f6d800800000009d50980080000000a0004"
    ),
    bytes.fromhex("c803 0014 00000000 0000 0000 8008 0000 0000 0001"),
)
FIRST = DATAGRAMS[0]
# The first request, whole.
REFUSED_DATAGRAMS = (
    FIRST[:-1], FIRST + b"\0",
    # Another message, a tunnel that is there, data, reserved bits, and an attribute that is too short.
    FIRST[:19] + b"\2" + FIRST[20:], FIRST[:5] + b"\1" + FIRST[6:], b"\x02" + FIRST[1:],
    FIRST[:1] + b"\x01" + FIRST[2:], FIRST[:20] + b"\x84" + FIRST[21:],
    FIRST[:20] + b"\x80\x04" + FIRST[22:], FIRST[:12], b"\xc8",
)  # fmt: skip
DATAGRAM_FACTS = (("", FIRST, {"version": "2"}), ("", DATAGRAMS[1], {"version": "3"}))
