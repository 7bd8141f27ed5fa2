from tests.matchers.asking import from_hex

# Recorded from ntpdate of NTPsec 1.2.2 and chronyd 4.3; ntpd before its first synchronisation, from Arkime's
# tests/pcap/ospf.pcap, which has the form of a call of ONC RPC up to the procedure; an SNTP client in its shortest form, by hand.
DATAGRAMS = (
    *from_hex(
        "e30000000000000000000000000000000000000000000000" + 16 * "00" + "eeab7b6c0b06a000",
        "230006200000000000000000000000000000000000000000" + 16 * "00" + "febf415b3924f91b",
        "e30006e80000000000000002494e49540000000000000000" + 16 * "00" + "e158296b5ce99661",
    ), b"\x1b" + bytes(47),
)  # fmt: skip
UNIQUE_ID = bytes.fromhex("0104 0024") + bytes(range(32))
"""An extension field of NTS (RFC 8915, section 5.3)."""
# The mode, the version and the length count.
MATCHED_DATAGRAMS = (
    *(bytes([version << 3 | 3]) + bytes(47) for version in (1, 2, 3, 4)),
    # With the sum of a key (MD5, SHA-1), with an extension field, and with both.
    DATAGRAMS[1] + bytes(20), DATAGRAMS[1] + bytes(24), DATAGRAMS[1] + UNIQUE_ID,
    DATAGRAMS[1] + UNIQUE_ID + UNIQUE_ID + bytes(20), b"\x23\x10\x11" + bytes(45),
    b"\x23\x00\xf9" + bytes(45),
)  # fmt: skip
REFUSED_DATAGRAMS = (
    DATAGRAMS[1][:-1], DATAGRAMS[1] + b"\0", DATAGRAMS[1] + bytes(12),
    DATAGRAMS[1] + b"\1\4\0\x12" + bytes(14), DATAGRAMS[1] + b"\1\4\xff\xfc" + bytes(64),
    # Version 0 and 5, other modes, and what no client has.
    *(bytes([first]) + bytes(47) for first in (0x03, 0x2B, 0x21, 0x22, 0x24, 0x26)),
    b"\x23\x11" + bytes(46), b"\x23\0\x12" + bytes(45), b"\x23\0\xf8" + bytes(45),
)  # fmt: skip
DATAGRAM_FACTS = tuple(
    ("", datagram, {"version": version})
    for datagram, version in zip(DATAGRAMS, "4443", strict=True)
)
