from tests.matchers.all_samples import MATCH, NO

# Recorded from ike-scan 1.9.5: version 1, version 2, and aggressive mode.
RECORDED = (
    bytes.fromhex(
        "8f9af026b41059390000000000000000011002000000000000000150000001340000000100000001"
        "0000012801010008030000240101000080010005800200028003000180040002800b0001000c0004"
        "00007080030000240201000080010005800200018003000180040002800b0001000c000400007080"
        "030000240301000080010001800200028003000180040002800b0001000c00040000708003000024"
        "0401000080010001800200018003000180040002800b0001000c0004000070800300002405010000"
        "80010005800200028003000180040001800b0001000c000400007080030000240601000080010005"
        "800200018003000180040001800b0001000c00040000708003000024070100008001000180020002"
        "8003000180040001800b0001000c0004000070800000002408010000800100018002000180030001"
        "80040001800b0001000c000400007080"
    ),
    bytes.fromhex(
        "6e01a102881fa27e00000000000000002120220800000000000001282200006c000000680101000b"
        "0300000c0100000c800e01000300000c0100000c800e008003000008010000030300000801000002"
        "03000008020000020300000802000001030000080300000203000008030000010300000804000002"
        "0300000804000005000000080400000e2800008800020000477a6b5e7590925a7520b7cfebac8c64"
        "826cbc70a67736d030d2ef011a79517e9e9a17f124430b49643e210ae639d44076979fbba008e2f8"
        "122f50671a2cf5d17273a9822fa4ef190d4bf76a8f6a9174ff6bf598c7716a6e954efbe85ab875df"
        "c991176131d7ad1c1af68f2d505ca51250bfdba55fa45f58d0f44500d197249e00000018a070913e"
        "d0cb13e743790dbfb4adfabf5bc4f880"
    ),
    bytes.fromhex(
        "1a8b80c2d80aaea20000000000000000011004000000000000000167040000a40000000100000001"
        "0000009801010004030000240101000080010005800200028003000180040002800b0001000c0004"
        "00007080030000240201000080010005800200018003000180040002800b0001000c000400007080"
        "030000240301000080010001800200028003000180040002800b0001000c00040000708000000024"
        "0401000080010001800200018003000180040002800b0001000c0004000070800a00008424934488"
        "70c021a4deb3fc282c16a137253288dfa5f815078f74fbe2f87e80899cd2866ce0af75f4c2c83604"
        "9fbc03acc312a4f99e890cb7cc2a3ac10000b06c671e5508831dd3c14f34fe8a78937036c4e8989e"
        "799251121a839a264287c33cd664174aee426e5193bcc5ef3a49e48aaf14fcc3edebfdefc3899ecf"
        "c9c68e6005000018c9df66807524cc35af54a077177656824661df290000000b031101f476706e"
    ),
)
DATAGRAMS = (*RECORDED, bytes(4) + RECORDED[0])
"""The last one is for port 4500."""


def header(
    first: str = "2120 2208", number: int = 0, responder: bytes = bytes(8), size: int = 40
) -> bytes:
    head = bytes(range(1, 9)) + responder + bytes.fromhex(first) + number.to_bytes(4, "big")
    return head + size.to_bytes(4, "big") + bytes(size - 28)


OTHER = b"\7" * 8
AUTH = bytes(4) + header("2e20 2308", 1, OTHER)
"""How a client goes on at port 4500 that has begun at port 500."""
# The SPIs, the version, the exchange, the flags and the length count.
MATCHED_DATAGRAMS = (
    AUTH,
    header("2920 2208"),  # a second try, with the cookie in front
    header("2e20 2508", 7, OTHER),
    header("2e20 2500", 0, OTHER),  # of the one who did not begin
    header("0510 0201", 0, OTHER),  # the fifth of version 1
    header("0810 2001", 0x12345678, OTHER),
    b"\xff",
)
REFUSED_DATAGRAMS = (
    header()[:-1], header() + b"\0", header(size=28)[:-1], bytes(8) + header()[8:],
    bytes(8) + header(), header("2120 2208", 1), header("2120 2208", 0, OTHER),
    header("2120 2220"),  # an answer
    header("2e20 2308", 1), header("2020 2208"), header("3720 2208"), header("2130 2208"),
    header("2120 2108"), header("0110 0208"), b"\xff\xff",
    # ESP at port 4500: SPI, number, encrypted
    bytes.fromhex("c1a2b3c4 00000001") + bytes(range(64)),
)  # fmt: skip
DATAGRAM_VERDICTS = (
    *(
        ("version=2", datagram, verdict)
        for datagram, verdict in zip(DATAGRAMS, (NO, MATCH, NO, NO), strict=True)
    ),
    ("version=2", AUTH, MATCH),
    ("version=*", b"\xff", NO),
)
DATAGRAM_FACTS = tuple(
    ("", datagram, {"version": version, "exchange": exchange})
    for datagram, version, exchange in zip(
        (*DATAGRAMS, AUTH), "12112", ("main", "init", "aggressive", "main", "auth"), strict=True
    )
)
UNUSABLE = (("version=3", "possible are 1, 2"),)
