from tests.matchers.all_samples import Facts

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SAMPLES = (
    # curl 7.88.1: --haproxy-protocol.
    b"PROXY TCP4 127.0.0.1 127.0.0.1 57960 43093\r\nGET / HTTP/1.1\r\n",
    # HAProxy 2.6.12: send-proxy-v2, and the same with crc32c and unique-id.
    SIGNATURE + bytes.fromhex("2111000c 7f000001 7f000001 c718 c81b") + b"hello\r\n",
    SIGNATURE
    + bytes.fromhex("21110017 7f000001 7f000001 c370 b387 030004 5598b1dc 050001 30")
    + b"hello\r\n",
    # Made by hand.
    b"PROXY UNKNOWN\r\n",
)

MATCHED = (
    # The end of the line decides.
    (SAMPLES[0], 44),
    (SAMPLES[3], 15),
    # A line has at most 107 bytes.
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", 107),
    # The length decides, whether more is there or not.
    *((sample, 16) for sample in SAMPLES[1:3]),
    (SIGNATURE + bytes.fromhex("20000000"), 16),
)
REFUSED = (
    (b"POST / HTTP/1.1\r\n", 2), (b"PRI * HTTP/2.0\r\n", 3), (b"PROPFIND / HTTP/1.1\r\n", 4), (b"PROXY TCP5", 10),
    (b"PROXY TCP4 127.0.0.1 127.0.0.256", 32), (b"PROXY UNKNOWN\n", 14), (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 106),
    (b"\r\nGET / HTTP/1.1\r\n", 3), (b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\n", 5), (SIGNATURE + b"\x22", 13),
    (SIGNATURE + b"\x21\x41", 14), (SIGNATURE + b"\x21\x11\x10", 15), (SIGNATURE + b"\x21\x11\x00\x0b", 16),
)  # fmt: skip
FACTS: Facts = (
    ("", SAMPLES[0], {"source": "127.0.0.1:57960"}),
    ("", SAMPLES[1], {"source": "127.0.0.1:50968"}),
    ("", b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", {"source": "[2001:db8::1]:1"}),
    # A part of a header, one without addresses, and one that is wrong in the end tell nothing.
    ("", SAMPLES[1][:20], {}), ("", SAMPLES[3], {}),
    ("", SAMPLES[2].replace(b"\xb1\xdc", b"\xb1\xdd"), {}), ("", b"GET /", {}),
)  # fmt: skip
