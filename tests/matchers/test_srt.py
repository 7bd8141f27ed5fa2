# Recorded from srt-live-transmit 1.5.1; then a rendezvous, made by hand after the draft.
DATAGRAMS = (
    bytes.fromhex(
        "8000000000000000000000850000000000000004000000027fde4642000005dc00002000000000"
        "010c6692b7000000000100007f000000000000000000000000"
    ),
    bytes.fromhex(
        "80000000000000000000012a0000000000000005000000007fde4642000005dc00002000000000"
        "000c6692b75a5b5c5d0100007f000000000000000000000000"
    ),
)
FIRST = DATAGRAMS[0]
# The first packet, whole.
REFUSED_DATAGRAMS = (
    FIRST[:-1], FIRST + b"\0", b"\x80\x02" + FIRST[2:], FIRST[:15] + b"\1" + FIRST[16:],
    FIRST[:19] + b"\6" + FIRST[20:], FIRST[:30] + b"\0\0" + FIRST[32:],
    FIRST[:39] + b"\2" + FIRST[40:],
    # With the server's cookie it is the second one.
    FIRST[:44] + b"abcd" + FIRST[48:], FIRST[:36] + b"\xff" * 4 + FIRST[40:], b"\x80",
)  # fmt: skip
