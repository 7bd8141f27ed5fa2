# Recorded from kinit of MIT Kerberos 1.20.1; the second is made of it, as a TGS-REQ with lengths of two bytes begins.
SAMPLES = (
    bytes.fromhex(
        "000000b7 6a81b4 3081b1 a103020105 a20302010a a31a3018300aa10402020096a2020400300aa10402020095a2020400"
        "a48188308185a00703050000008010a1123010a003020101a10930071b05616c696365a20d1b0b4558414d504c452e434f4d"
    ),
    bytes.fromhex("000005dc 6c8205d8 308205d4 a103020105 a20302010c a38205603082055c"),
)


def der(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, len(b"".join(parts))]) + b"".join(parts)


BODY = der(0xA4, der(0x30, bytes.fromhex("a00703050000810000 a20d1b0b4558414d504c452e434f4d")))
TGS = der(0x6C, der(0x30, bytes.fromhex("a103020105 a20302010c"), BODY))
# Recorded from kinit of MIT Kerberos 1.20.1; the second is made by hand as a TGS-REQ is built, with nothing to prove who asks.
DATAGRAMS = (
    bytes.fromhex(
        "6a81b43081b1a103020105a20302010aa31a3018300aa10402020096a2020400300aa104020200"
        "95a2020400a48188308185a00703050000000010a1123010a003020101a10930071b05616c6963"
        "65a20d1b0b4558414d504c452e434f4da320301ea003020102a11730151b066b72627467741b0b"
        "4558414d504c452e434f4da511180f32303236313132333130303932375aa706020455890509a8"
        "1a301802011202011102011402011302011002011702011902011a"
    ),
    TGS,
)
DECIDED_AT = (20, 22)
REFUSED = (
    (bytes.fromhex("80"), 1), (bytes.fromhex("01"), 1), (bytes.fromhex("0000003f"), 4),
    (bytes.fromhex("000000b7 6b"), 5), (bytes.fromhex("000000b7 7e"), 5),
    (bytes.fromhex("000000b7 6a80"), 6), (bytes.fromhex("000000b7 6a81b3"), 7),
    (bytes.fromhex("000000b7 6a81b5"), 7), (bytes.fromhex("000000b7 6a81b4 31"), 8),
    (bytes.fromhex("000000b7 6a81b4 3081b0"), 10),
    (bytes.fromhex("000000b7 6a81b4 3081b1 a103020104"), 15),
    (bytes.fromhex("000000b7 6a81b4 3081b1 a103020105 a20302010c"), 20),
    # A change of the password, LDAP, and PostgreSQL.
    (bytes.fromhex("00000200 0200 ff80"), 5), (bytes.fromhex("300c020101"), 1),
    (bytes.fromhex("00000008 04d2162f"), 4),
)  # fmt: skip
FIRST = DATAGRAMS[0]
# Over UDP the lengths agree with that of the datagram, and there is none in front.
REFUSED_DATAGRAMS = (
    FIRST[:-1], FIRST + b"\0", SAMPLES[0], b"\x6b" + FIRST[1:], FIRST[:15] + b"\x0c" + FIRST[16:],
    FIRST.replace(b"\xa1\3\2\1\5", b"\xa1\3\2\1\4"), FIRST[:6],
)  # fmt: skip
