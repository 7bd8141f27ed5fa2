import struct
import zlib

from tests.matchers.all_samples import MATCH, NO, Facts
from tests.matchers.asking import from_hex, rows_from_hex

# The beginning of the request of RFC 5769, section 2.1; Allocate and ConnectionBind made by hand after RFC 8656 and
# RFC 6062.
SAMPLES = (
    bytes.fromhex("0001 0058 2112a442 b7e7a701bc34d686fa87dfae 8022 0010") + b"STUN test client",
    bytes.fromhex("0003 0008 2112a442 6b6f7a3b5c2d1e0f9a8b7c6d 0019 0004 06000000"),
    bytes.fromhex("000b 0008 2112a442 0123456789abcdef01234567 002a 0004 00000001"),
    # The beginning of a check of ICE over TCP, from nDPI's tests/cfgs/default/pcap/stun.pcap.
    bytes.fromhex("0068 0001 0054 2112a442 f3439453b698fb2950bb06ed 0006 0009 2f7049303a546f4564"),
)
PLAIN, FRAMED = SAMPLES[:3], SAMPLES[3]
# Recorded from stun 0.97 (RFC 3489), and from turnutils_stunclient and turnutils_uclient of coturn 4.6.1.
DATAGRAMS = from_hex(
    "0001000801dee50b0fc87e263866220862185c650003000400000000",
    "000100002112a442ec8074330852601595d549ae",
    "000300202112a442fd28596ae18fd552388ce8d90019000411000000000d00040000030900180001"
    "800000008028000477c65b1a",
    # From nDPI's tests/cfgs/default/pcap, teams.pcap, wa_voice.pcap and zoom.pcap: attributes that are not filled up, and one
    # that only Zoom has, without the magic cookie.
    "000300c22112a442222fefc7f3924bd1b99727e4000f000472c64bc6803700040000000280080004"
    "0000000680060004000000010010000400002ee08055000400020002809500087f20c4dd4f848dfa"
    "00140014024ecbf8827a60d65306debfa77d87d14402dd5d0015000a227274636d65646961220006"
    "00380200002490a0dbdb01d6194de21537bfc992a00332731af1bedc569ae83bd5ab00000000bf71"
    "b276c97813a8ddefeb5cbc793a277a4ce63c000800207e44e6521f4710a5540f6290a67d69f95fa8"
    "f2f071c7a858a17775c39fdb730d",
    "0003006a2112a442a6674f75f0ad2c001315b3364000006605030826d884ea2ea4c4944ba39f2986"
    "7bf241bc1d1f5228195ff7602f3302e61e3ef4de0deb97989fa132933e675e3981c454d16a5a8caa"
    "e9521d0421dba60b3b329f858a72e5dd741369a6808d8481672dade584a273d399fe31d3f91e4545"
    "549b729bd734",
    "00010018c15dae63585d14392e582c260403bf30010100143132333435363738393031323334353637383900",
)


def request(kind: int, *attributes: tuple[int, bytes], fingerprint: bool = False) -> bytes:
    body = b"".join(
        struct.pack(">HH", name, len(value)) + value + bytes(-len(value) % 4)
        for name, value in attributes
    )
    size = len(body) + 8 * fingerprint
    data = struct.pack(">HHI", kind, size, 0x2112A442) + bytes(range(12)) + body
    if fingerprint:
        data += struct.pack(">HHI", 0x8028, 4, zlib.crc32(data) ^ 0x5354554E)
    return data


ICE = request(1, (6, b"a7Xq:Zk3w"), (0x24, b"\0\1\2\3"), (8, bytes(20)), fingerprint=True)
CHANNEL = bytes.fromhex("4001 0005") + b"hello"
# The echo with which peers of GTP version 2 begin, after 3GPP TS 29.274, section 7.1.1; then from nDPI's gtp_c.pcap.
GTP = from_hex(
    "4001 0009 00000100 03 0001 00 2a",
    "482000f3000000004b5462000100080089674511223344f54c0006009876541234564b0008003456"
    "7890120102f356000d00189876541234987654123456785300030089475652000100064d00020000"
    "005700090086355292040a6500024700090008696e7465726e6574800001000063000100014f0005"
    "0001211717017f00010002480008000000270f0000270f49000100055d003d00490001000554000d"
    "002131010910c0a80101ffffff005700090284355292050a65000250001600180700000000000000"
    "000000000000000000000000008400070001ac106b7100018400070101ac106b7200017200020000"
    "005f0002000001",
)
MATCHED = (
    # The end of the magic cookie decides.
    *((sample, 8) for sample in PLAIN),
    # With a length before it, as ICE sends it over TCP, both lengths have to agree.
    (FRAMED, 10),
)
REFUSED = (
    *rows_from_hex(
        ("0068 0003", 4), ("0068 0101", 3), ("0068 0001 0058", 6), ("0018 0001 0000", 6),
        ("1014 0001", 2), ("0068 0001 0054 2112a443", 10),
    ),
    # Answers, other requests, odd lengths and the lack of the cookie are a no.
    *rows_from_hex(
        ("0101", 2), ("0011", 2), ("0000", 2), ("0002", 2), ("0001 0002", 4), ("0001 10", 3),
        ("0013", 2), ("0001 0000 2113", 6), ("0001 0000 2112a443", 8),
    ),
    *rows_from_hex(
        ("00000008 04d2162f", 2), ("00010012 00040000", 4), ("00016e", 3), ("000e38", 2),
        ("003038", 3), ("001d 1234 0100", 2), ("0020 1234 0100", 3), ("0020 0001 0100", 5),
        ("00000054 fe534d42", 2),
    ),
)  # fmt: skip
# Lengths fit, and a fingerprint is right.
MATCHED_DATAGRAMS = (
    ICE, request(0x11), request(0x16, (0x13, b"data"), (0x12, bytes(8))), request(0x200), CHANNEL,
    CHANNEL + bytes(3), GTP[0][:7] + b"\1" + GTP[0][8:], GTP[0][:10] + b"\2" + GTP[0][11:],
)  # fmt: skip
BEHIND = request(1, fingerprint=True) + request(1, (0x8022, b"abcd"))[20:]
"""Nothing comes behind a fingerprint."""
REFUSED_DATAGRAMS = (
    BEHIND[:3] + bytes([BEHIND[3] + 8]) + BEHIND[4:], ICE[:-1], ICE + b"\0", ICE[:-1] + bytes([ICE[-1] ^ 1]),
    request(1, (6, b"a7Xq:Zk3v"))[:-4], request(0x101), request(0x111), b"\x80" + ICE[1:],
    request(1).replace(b"\x21\x12", b"\x21\x13"), request(3, (3, b"abcd")).replace(b"\x21\x12", b"\x21\x13"),
    request(1, (0x20, b"abcd")).replace(b"\x21\x12", b"\x21\x13"), request(1, *((0x8022, b"") for _ in range(65))),
    CHANNEL[:-1], CHANNEL + bytes(4), b"\x50" + CHANNEL[1:], b"\x40\0\0\0", b"\0", *GTP, DATAGRAMS[-1][:-1],
    DATAGRAMS[-2][:-1], DATAGRAMS[-3][:-1], DATAGRAMS[-1].replace(b"\x01\x01\0\x14", b"\x01\x02\0\x14"),
)  # fmt: skip
FRAMED = len(ICE).to_bytes(2, "big") + ICE
NO_USERNAME = request(1, (0x24, b"abcd"))
# Methods have names; others are numbers. The user name leads a call to its media server.
VERDICTS = (
    ("method=binding", ICE, MATCH, 8),
    ("method=allocate", ICE, NO, 8),
    # The user name is waited for, and its absence is known at the end.
    ("username=a7Xq:*", ICE, MATCH, 33), ("username=a7Xq:*", FRAMED, MATCH, 35),
    ("username=b*", ICE, NO, 33), ("username=*", NO_USERNAME, NO, 24),
)  # fmt: skip
FACTS: Facts = (
    ("", FRAMED, {"method": "binding", "username": "a7Xq:Zk3w"}),
    ("", FRAMED[:10], {"method": "binding"}),
    ("", b"\1\2", {}),
)
DATAGRAM_VERDICTS = (
    ("method=allocate", DATAGRAMS[2], MATCH), ("method=allocate,refresh", DATAGRAMS[1], NO),
    ("method=channel-*", CHANNEL, MATCH), ("username=a7Xq:*", ICE, MATCH), ("username=b*", ICE, NO),
    ("username=*", DATAGRAMS[1], NO),
)  # fmt: skip
DATAGRAM_FACTS: Facts = (
    ("", CHANNEL, {"method": "channel-data"}), ("", request(0x200), {"method": "0x080"}),
    ("", ICE, {"method": "binding", "username": "a7Xq:Zk3w"}),
    *(("", one, {"method": "binding"}) for one in DATAGRAMS[:2]), ("", DATAGRAMS[2], {"method": "allocate"}),
)  # fmt: skip
UNUSABLE = (("method=bind", "did you mean 'binding'?"),)
