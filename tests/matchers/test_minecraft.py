from tests.matchers.all_samples import MATCH, NO, Facts


def varint(number: int) -> bytes:
    """Write a number of seven bits a byte, the least significant first."""
    head = b""
    while number > 0x7F:
        head += bytes([number & 0x7F | 0x80])
        number >>= 7
    return head + bytes([number])


def handshake(host: bytes, state: int = 2, version: int = 767, port: int = 25565) -> bytes:
    body = b"\0" + varint(version) + varint(len(host)) + host + port.to_bytes(2, "big")
    return varint(len(body) + 1) + body + bytes([state])


def ping(host: str) -> bytes:
    name, channel = host.encode("utf-16-be"), "MC|PingHost".encode("utf-16-be")
    rest = b"\x4e" + len(host).to_bytes(2, "big") + name + (25565).to_bytes(4, "big")
    return b"\xfe\x01\xfa\0\x0b" + channel + len(rest).to_bytes(2, "big") + rest


LOGIN = handshake(b"mc.example.com")
PING = ping("mc.example.com")
# Packets as Java Edition 1.21, 1.20.4 with its first query, 1.8 with Forge, 1.16 with Forge, a server list with the
# version -1, and 1.6 write them.
SAMPLES = (
    LOGIN + b"\x07\0\x05alice", handshake(b"mc.example.com.", 1, 765) + b"\x01\0",
    handshake(b"forge.example.com\0FML\0", 2, 47), handshake(b"forge.example.com\0FML2\0", 2, 754),
    handshake(b"192.0.2.7", 1, 0xFFFFFFFF), handshake(b"a" * 120 + b".example.com", 3), PING,
    # Recorded from mcstatus 14.2.0: JavaServer and LegacyServer.
    b"\x0f\x00/\t127.0.0.1\xb8\x9b\x01\x01\x00", b"\xfe\x01\xfa",
)  # fmt: skip

LEGACY_LIKE = handshake(b"x" * 246)
MATCHED = (
    # The next state, which ends the packet, decides.
    (SAMPLES[0], len(LOGIN)), handshake(b"x" * 765, 1), (b"\x07\0\0\1x\0\0\1", 8),
    # A handshake may begin with two bytes of a ping.
    (LEGACY_LIKE, len(LEGACY_LIKE)),
    # Its first three bytes are enough; those of older releases are too few.
    (PING, 3),
    (b"\xfe\x01\xfa garbage", 3),
)  # fmt: skip
REFUSED = (
    # Lengths that disagree and values out of their range are a no at the byte that shows it.
    (b"\x06\0\0\1x\0\0\1", 1), (b"\x87\0\0\0\1x\0\0\1", 2), (b"\x89\x06\0", 2),
    (b"\x80\x80\x01", 2), (b"\x15\x01", 2), (b"\x15\0\x80\x80\x80\x80\x10", 7),
    (b"\x15\0\x80\0", 4), (b"\x15\0\x2f\0", 4), (b"\x15\0\x2f\x0d", 4), (b"\x15\0\x2f\xfe\x05", 5),
    (handshake(b"a b"), 7), (handshake(b"\0FML\0"), 6), (handshake(b"h\xc3\xb6st"), 7),
    (handshake(b"host", 0), 12), (handshake(b"host", 4), 12),
    # Other protocols whose second byte can be NUL are a no.
    *(
        b"\x10\0\0\0\1\0\0\0\0\0\0\0\xdd\x07\0\0", b"\x12\1\0\x2f\0\0\1\0", b"\x16\3\1\2\0\1",
        b"\x6c\0\x0b\0\0\0\0\0\0\0\0\0", b"\xff\xfb\x1f", b"GET / HTTP/1.1\r\n",
    ),
)  # fmt: skip
BEHIND_PROXIES = (
    handshake(b"mc.example.com///192.0.2.7:50000///1700000000"), handshake(b"mc.example.com//192.0.2.7//c29tZQ=="),
    handshake(b"mc.example.com\0FML\0///192.0.2.7:50000///1700000000"), handshake(b"mc.example.com/"),
)  # fmt: skip
END = len(PING) - 4
MALFORMED = [
    (PING[:at] + bytes([byte]) + PING[at + 1 :], at + 1)
    for at, byte in ((4, 0x0C), (6, 0x6D), (28, 6), (31, 0x0F))
]
VERDICTS = (
    # With ``host=`` the ping of release 1.6 is read on to the end of the host. What is no ping is a no then.
    ("host=mc.example.com", PING, MATCH, END), ("host=*.example.net", PING, NO, END),
    ("host=play.example.com", PING, NO, END - 26), ("host=*", ping(""), MATCH),
    *(("host=*", data, NO, at) for data, at in MALFORMED),
    *(("", data, MATCH, 3) for data, _ in MALFORMED),
    # Case, a final dot and what mods append do not count.
    ("host=MC.example.com", LOGIN, MATCH, len(LOGIN)), ("host=mc.example.com", SAMPLES[1], MATCH),
    ("host=forge.example.com", SAMPLES[2], MATCH), ("host=.example.com", SAMPLES[3], MATCH),
    # Nor does the address of the player, which some proxies append.
    *(("host=mc.example.com", data, MATCH, len(data)) for data in BEHIND_PROXIES),
    ("host=mc.example.org", BEHIND_PROXIES[0], NO, 17), ("host=mc.example.com/*", BEHIND_PROXIES[0], NO),
    # The first byte that no pattern has there is a no, or the end of the address.
    ("host=play.example.com", LOGIN, NO, 6), ("host=*.example.net", LOGIN, NO, len(LOGIN) - 3),
)  # fmt: skip
KEYS = (
    ("host=*.example.com", SAMPLES[2], "forge.example.com"),
    ("host=*.example.com", LOGIN[:10], None), ("host=*.example.com", b"GET /", ""),
)  # fmt: skip
FACTS: Facts = (
    ("", SAMPLES[2], {"host": "forge.example.com"}), ("", PING, {"host": "mc.example.com"}),
    *(("", data, {"host": "mc.example.com"}) for data in BEHIND_PROXIES), ("", LOGIN[:9], {}),
    ("", ping(""), {}),
)  # fmt: skip
TRIED = ("host=mc.*", "host=*.example.com", "host=~mc[.].*")
UNUSABLE = (("host=a..b", "host: "),)
