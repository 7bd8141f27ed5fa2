from binascii import a2b_base64
from hashlib import blake2s

from tests.matchers.all_samples import MATCH, NO, Facts

SERVER = "xEtrz95nxyJyxDoV+O9hAoMipEUDeppRYGhLQWJgtnY="
OTHER = "zMjVJdmOqZ4LUlS4cKk47MoQELvP0CXqiU/j+pM4qkE="
# Two initiations for the server with that key, recorded from wireguard-go 0.0.20220316.
DATAGRAMS = (
    bytes.fromhex(
        "010000003f6dad211183acd5309d473f859defe4ae8ef9d4edfde101dcca8eb9bf08e5ed4e4d584c"
        "33e7cf2ebe28cf192fe219440c200fbf830917ec305a9b7e10e6a32005d14f7f7fe8d1ce81417175"
        "4c64fb6f834f880271e1a262226d8a09b54a2a375270c0461986eb2f9eefa580fb00f9ad63412d3c"
        "981f0d6b7d7b19cda21a7d2700000000000000000000000000000000"
    ),
    bytes.fromhex(
        "01000000ee0a6ba35927f41aa7142a75b4557cb2cd911c78956e3bb1283869ecdd3213a84d5a9d47"
        "45c8cda04ac19817abd20dce0a1a881cd44339ebef057981376c3b9180c0849281afc579896ad3f3"
        "4edadda8c394ecf0965db10a5e0c50d81f6f22e522c15f3d61fb2a63f20979255b3e3eb0c686b5f1"
        "d0dfb9db5e1fbe332b489ae300000000000000000000000000000000"
    ),
)


def signed(message: bytes, key: str) -> bytes:
    """Put both sums behind a message, the second one empty, as for a peer with that key."""
    label = blake2s(b"mac1----" + a2b_base64(key)).digest()
    return message + blake2s(message, digest_size=16, key=label).digest() + bytes(16)


def reserved(message: bytes) -> bytes:
    """Put a client's number behind the type, as Cloudflare's service has it."""
    return message[:1] + b"\xc5\x14\x08" + message[4:]


RESPONSE = signed(b"\2\0\0\0" + bytes(range(8)) + bytes(range(48)), SERVER)
COOKIE = b"\3\0\0\0" + bytes(range(60))
DATA = bytes.fromhex("04000000 10203040 0500000000000000") + bytes(range(48))
# Messages of these lengths are taken, others are not.
MATCHED_DATAGRAMS = (
    RESPONSE, COOKIE, DATA,
    b"\4" + DATA[1:16] + bytes(16),  # a keepalive
)  # fmt: skip
REFUSED_DATAGRAMS = (
    DATAGRAMS[0][:-1], DATAGRAMS[0] + b"\0", b"\0" + DATAGRAMS[0][1:], b"\5" + DATAGRAMS[0][1:],
    reserved(DATAGRAMS[0]), DATA + b"\0", DATA[:16], DATA[:14] + b"\1" + DATA[15:], b"\1",
    # Queries of DNS begin so, and may have any length.
    *(one[:4] + b"\0\1\0\0" + one[8:] for one in (DATAGRAMS[0], RESPONSE, COOKIE, DATA)),
)  # fmt: skip


def changed(at: int) -> bytes:
    data = bytearray(DATAGRAMS[0])
    data[at] ^= 1
    return bytes(data)


RESERVED = reserved(DATAGRAMS[0])
BITS = (*range(4, 132, 7), 131)
THREE = "197,20,8", "197, 20, 8", "xRQI"
DATAGRAM_VERDICTS = (
    # An initiation matches the key that it was made for, and no other.
    *((f"key={SERVER}", datagram, MATCH) for datagram in DATAGRAMS),
    *((f"key={OTHER}", datagram, NO) for datagram in DATAGRAMS),
    *(({"key": f"{OTHER}, {SERVER}"}, datagram, MATCH) for datagram in DATAGRAMS),
    # One bit that is changed is a no, up to the sum itself, and none behind it counts.
    *((f"key={SERVER}", changed(at), NO) for at in BITS),
    *(("", changed(at), MATCH) for at in BITS),
    (f"key={SERVER}", DATAGRAMS[0][:132] + b"\1" * 16, MATCH),
    # A response shows its key, too; a cookie and data show none.
    (f"key={SERVER}", RESPONSE, MATCH),
    (f"key={OTHER}", RESPONSE, NO),
    *((f"key={SERVER}", datagram, NO) for datagram in (COOKIE, DATA)),
    # Some clients put three bytes behind the type: both ways to write them mean the same, and the key is found as without.
    *(({"reserved": text}, RESERVED, MATCH) for text in THREE),
    *(({"reserved": text, "key": SERVER}, RESERVED, MATCH) for text in THREE),
    *(({"reserved": text}, DATAGRAMS[0], NO) for text in THREE),
)
DATAGRAM_FACTS: Facts = (
    ("", DATAGRAMS[0], {"message": "initiation"}), ("", RESPONSE, {"message": "response"}),
    ("", COOKIE, {"message": "cookie"}), ("", DATA, {"message": "data"}), ("", b"\1\0\0\0", {}),
)  # fmt: skip
KEYLESS = "", "abc", SERVER[:-1], SERVER + ",", f"{SERVER},x", "\xe9"
NOT_THREE = "", "1,2", "1,2,256", "1,2,3,4", "xRQ", "xRQI="
UNUSABLE = (
    *((f"key={one}", "is not a public key; write the 44 characters") for one in KEYLESS),
    *((f"reserved={one}", "is not three bytes") for one in NOT_THREE),
)
