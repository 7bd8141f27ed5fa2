from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts


def request(*attributes: tuple[int, bytes], flags: int = 0x40) -> bytes:
    body = b""
    for code, value in attributes:
        body += code.to_bytes(4, "big") + bytes([flags]) + (8 + len(value)).to_bytes(3, "big")
        body += value + bytes(-len(value) % 4)
    size = (20 + len(body)).to_bytes(3, "big")
    return b"\x01" + size + bytes.fromhex("80000101 00000000 4946bac0 200cc66e") + body


HOST, REALM = (264, b"client.example.org"), (296, b"example.org")
# Recorded from freeDiameter 1.2.1; then made by hand with other attributes before these, and none that names the peer.
RECORDED = bytes.fromhex(
    "010000a480000101000000004946bac0200cc66e000001084000001a636c69656e742e6578616d706c652e6f"
    "7267000000000128400000136578616d706c652e6f726700000001164000000c6b049200000001014000000e"
    "0001c000020200000000010a4000000c000000000000010d00000014667265654469616d657465720000010b"
    "0000000c000027d90000012b4000000c00000000000001024000000cffffffff"
)
SAMPLES = (
    RECORDED, request((257, b"\0\1\xc0\0\2\2"), (266, bytes(4)), REALM, HOST, (269, b"x")), request((266, bytes(4))),
)  # fmt: skip
DECIDED_AT = 12
REFUSED = (
    (b"\2", 1), (b"\1\1", 2), (b"\1\0\0\x18", 4), (b"\1\0\0\xa5", 4), (b"\1\0\xff\xff", 4),
    # An answer, a request that may be forwarded, another command (Device-Watchdog), and another application.
    (b"\1\0\0\xa4\0", 5), (b"\1\0\0\xa4\xc0", 5), (bytes.fromhex("010000a4 80000118"), 8),
    (bytes.fromhex("010000a4 80000101 01000000"), 9),
)  # fmt: skip
TRIED = ("origin_host=*.example.org", "origin_realm=~exa.*")
VERDICTS = (
    ("origin_host=*.example.org", RECORDED, MATCH, len(RECORDED)),
    ("origin_host=.Example.ORG. origin_realm=example.org", SAMPLES[1], MATCH),
    ("origin_realm=example.com", RECORDED, NO, len(RECORDED)),
    ("origin_host=*.example.org", RECORDED[:-1], NEED_MORE),
    ("origin_host=*", SAMPLES[2], NO),
    # The same code by a vendor is another attribute.
    ("origin_host=*", request(HOST, flags=0xC0), NO),
    # Lengths of attributes that do not agree with that of the request.
    *(
        ("origin_host=*", RECORDED[:25] + size + RECORDED[28:], NO)
        for size in (b"\0\0\7", b"\0\0\x91", b"\xff\xff\xff")
    ),
    ("origin_host=*", RECORDED[:3] + b"\x1c" + RECORDED[4:28], NO),
)
UNUSABLE = (("origin_host=a..b", "origin_host: "),)
FACTS: Facts = (
    ("", RECORDED, {"origin_host": "client.example.org", "origin_realm": "example.org"}),
    ("", RECORDED[:-1], {}),
    ("", request((264, b"a\n")), {"origin_host": r"a\n"}),
)
