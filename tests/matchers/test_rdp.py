from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from tests.matchers.asking import rows_from_hex

NEGOTIATION = bytes.fromhex("01 00 0800 0b000000")


def request(variable: bytes) -> bytes:
    length = 11 + len(variable)
    return bytes([3, 0, length >> 8, length & 0xFF, length - 5, 0xE0]) + bytes(5) + variable


# The first is that of MS-RDPBCGR, section 4.1.1; the others are made by hand after section 2.2.1.1: a routing token of
# Windows, another one, a negotiation request alone, one with correlation info, and nothing.
SAMPLES = (
    bytes.fromhex(
        "0300002c 27e00000000000 436f6f6b69653a206d737473686173683d656c746f6e730d0a 0100080000000000"
    ),
    request(b"Cookie: msts=3640205228.15629.0000\r\n" + NEGOTIATION),
    request(b"tsv://MS Terminal Services Plugin.1.Farm\r\n" + NEGOTIATION),
    request(NEGOTIATION),
    request(
        bytes.fromhex("01 08 0800 0b000000") + b"\x06\x00\x24\x00" + bytes(range(1, 17)) + bytes(16)
    ),
    request(b""),
    # Recorded from xfreerdp 2.11.7 with /u:alice.
    bytes.fromhex("0300002b 26e00000000000")
    + b"Cookie: mstshash=alice\r\n\x01\x00\x08\x00\x03\x00\x00\x00",
    # Made by hand: a token behind a header of its own, as balancers with a session directory write it.
    request(request(b"Cookie: msts=3640205228.15629.0000\r\n") + NEGOTIATION),
    request(request(b"Cookie: msts=167772170.15629.00\r\n")),
)
COOKIE, TOKEN, RAW_TOKEN = SAMPLES[:3]
INNER_TOKEN = SAMPLES[7]

# A line or a negotiation request may follow, or nothing.
DECIDED_AT = (12, 12, 12, 12, 12, 11, 12, 23, 23)
REFUSED = (
    *rows_from_hex(
        ("0301", 2), ("0300 000a", 4), ("0300 0104", 4), ("0300 002c 26", 5),
        ("0300 002c 27 f0", 6), ("0300 002c 27 e0 0000 0001", 10),
        ("0300 002c 27 e0 0000 0000 10", 11), ("0300 002c 27 e0 0000 0000 00 01", 12),
        ("0300 0013 0e e0 0000 0000 00 20", 12),
        # A header within must fit into the whole.
        ("0300 0040 3b e0 0000 0000 00 0301", 13), ("0300 0040 3b e0 0000 0000 00 0300 0036", 15),
        ("0300 0040 3b e0 0000 0000 00 0300 000c", 15), ("0300 0040 3b e0 0000 0000 00 0300 002d 27", 16),
        ("0300 0040 3b e0 0000 0000 00 0300 002d 28 f0", 17), ("0300 0040 3b e0 0000 0000 00 0300 002d 28 e0 01", 18),
    ),
    # Cassandra, RTMP and other users of TPKT, such as S7, are a no.
    *rows_from_hex(
        ("03 00 0000 05 00000000", 4),
        ("03 00000000 00000000", 4),
        ("0300 0016 11e0 0000 0001 00 c1020100 c2020102 c0010a", 10),
        ("0300 0016 11e0 0000 0000 00 c1020100 c2020102 c0010a", 12),
    ),
)  # fmt: skip
LONGEST = request(b"Cookie: mstshash=" + b"a" * 229 + b"\r\n")
START = b"Cookie: mstshash="
VERDICTS = (
    # The end of the line with the name of the user decides.
    ("cookie=el*", COOKIE, MATCH, 36), ("cookie=alice,eltons", COOKIE, MATCH, 36),
    ("cookie=eltons", COOKIE[:35], NEED_MORE, 35), ("cookie=eltons", COOKIE[:20], NEED_MORE, 20),
    ("cookie=a*", LONGEST, MATCH, 259),
    ("cookie=eltona", COOKIE, NO, 34), ("cookie=elton", COOKIE, NO, 34),
    ("cookie=*x", COOKIE, NO, 35), ("cookie=eltons?", COOKIE, NO, 35),
    # A request without a cookie is a no.
    *(
        ("cookie=*", sample, NO, at)
        for sample, at in zip(SAMPLES[1:6], (24, 12, 12, 12, 11), strict=True)
    ),
    # So is a cookie with a control character, or without an end.
    ("cookie=*", request(START + b"a\x00b\r\n"), NO, 30),
    ("cookie=*", request(START + b"a\rb\r\n"), NO, 31),
    ("cookie=*", request(START + b"abc"), NO, 31), ("cookie=*", request(START[:5]), NO, 16),
    ("cookie=*", b"\x03\x01", NO, 2),
    # A routing token may be that of Windows, or any line but a cookie.
    ("token=3640205228.*", TOKEN, MATCH, 47), ("token=tsv://*.Farm", RAW_TOKEN, MATCH, 53),
    ("token=3640205228.*", INNER_TOKEN, MATCH, 58), ("token=4*", INNER_TOKEN, NO, 36),
    ("token=Cookie", request(b"Cookie\r\n"), MATCH, 19),
    ("token=3640205228.*", TOKEN[:30], NEED_MORE, 30),
    # A cookie is no token, and the first byte that no pattern can have there is a no.
    ("token=*", COOKIE, NO, 28), ("token=4*", TOKEN, NO, 25), ("token=x*", RAW_TOKEN, NO, 12),
    *(("token=*", sample, NO, at) for sample, at in zip(SAMPLES[3:6], (12, 12, 11), strict=True)),
)  # fmt: skip
TRIED = ("cookie=el*,a?", "token=*.0000")
UNUSABLE = (
    ("cookie=a,,b", "cookie: "),
    # No request has both a cookie and a token.
    ("cookie=a token=b", "write a line for each"),
)
FACTS: Facts = (
    ("", COOKIE, {"cookie": "eltons"}),
    ("", TOKEN, {"token": "3640205228.15629.0000"}),
    ("", INNER_TOKEN, {"token": "3640205228.15629.0000"}),
    ("", RAW_TOKEN, {"token": "tsv://MS Terminal Services Plugin.1.Farm"}),
    # What is not there in full, or no request, tells nothing.
    *(("", data, {}) for data in (COOKIE[:20], COOKIE[:35], SAMPLES[3], b"GET / HTTP/1.1\r\n")),
)
