"""The `openvpn` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.openvpn import openvpn
from txmux.testing import check_matcher

V1, V2, V3 = b"\x08", b"\x38", b"\x50"
SESSION = bytes.fromhex("7f3a91c4d2085be6")
TIME = bytes.fromhex("6553f2a1")
FIRST, EARLY = bytes.fromhex("00000001"), bytes.fromhex("0f000001")
NOTHING = bytes(5)


def framed(packet: bytes) -> bytes:
    """Put the length before a packet."""
    return len(packet).to_bytes(2, "big") + packet


def random(size: int) -> bytes:
    """Make bytes that stand for an HMAC or for what is encrypted."""
    return bytes((index * 73 + 41) % 256 for index in range(size))


def tls_auth(size: int) -> bytes:
    """Make a reset with --tls-auth."""
    return framed(V2 + SESSION + random(size) + FIRST + TIME + NOTHING)


def tls_crypt(opcode: bytes, packet_id: bytes, key: int = 0) -> bytes:
    """Make a reset with --tls-crypt, or with --tls-crypt-v2 and a wrapped key of that size."""
    return framed(opcode + SESSION + packet_id + TIME + random(32 + 5 + key))


# Resets made by hand as OpenVPN 2.6's write_control_auth and tls_crypt_wrap put them together: plain; --tls-auth with SHA1, SHA256
# and SHA512; --tls-crypt; --tls-crypt-v2 of 2.6 and of 2.5.
SAMPLES = (
    framed(V2 + SESSION + NOTHING),
    tls_auth(20),
    tls_auth(32),
    tls_auth(64),
    tls_crypt(V2, FIRST),
    tls_crypt(V3, EARLY, key=299),
    tls_crypt(V3, FIRST, key=299),
    # Recorded from OpenVPN 2.6.14: plain, with --tls-auth, with --tls-crypt, and the beginning with --tls-crypt-v2.
    bytes.fromhex("000e 38 dbfddc6e0b13ddb0 00 00000000"),
    bytes.fromhex(
        "002a 38 c9fb44d1af1bdb4b 2f9b0995a76875fd8ed74753b12ea3c4495a81d1 00000001 6b001b70 00 00000000"
    ),
    bytes.fromhex(
        "0036 38 31187f2a9d372220 00000001 6b001b73 4cbb99fc6fd992ea774cd39b12cfdd00"
        "e69fa3ab6fbc25a0bf4e372318b96d58 34c27716ca58"
    ),
    bytes.fromhex("0161 50 c5606f8a3485d653 0f000001 6b001b76 aaa27ca6e604f3844028ae505e1545bc"),
)


class ContractTests(SynchronousTestCase):
    """The three resets, with and without what protects them."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            openvpn,
            samples=[
                # With encryption the packet's ID decides, else the end of the packet.
                *zip(SAMPLES, (16, 44, 56, 88, 15, 15, 15, 16, 44, 15, 15), strict=True),
                *(
                    (sample + sample, at)
                    for sample, at in zip(
                        SAMPLES, (16, 44, 56, 88, 15, 15, 15, 16, 44, 15, 15), strict=True
                    )
                ),
                # All sizes of digests are known.
                *((tls_auth(size), 2 + 22 + size) for size in (16, 20, 28, 32, 36, 48, 64)),
                # Clients with key method 1, before 2.5, have another opcode.
                (framed(V1 + SESSION + NOTHING), 16),
                # A wrapped key has 290 to 1024 bytes.
                *((tls_crypt(V3, EARLY, size), 15) for size in (290, 1024)),
                (tls_crypt(V3, bytes.fromhex("0f000000"), 290), 15),
            ],
            not_samples=[
                # A wrapped key has 290 to 1024 bytes.
                *((tls_crypt(V3, EARLY, size), at) for size, at in ((289, 2), (1025, 2))),
                # The byte that breaks the packet is a no.
                (b"\x05", 1),
                (b"\x00\x0d", 2),
                (b"\x00\x0f", 2),
                (b"\x00\x0e\x39", 3),
                (b"\x00\x0e\x40", 3),
                (b"\x00\x0e\x50", 3),
                (b"\x01\x60\x38", 3),
                (b"\x00\x0e\x38" + bytes(8), 11),
                (framed(V2 + SESSION + b"\x01\0\0\0\0"), 12),
                (framed(V2 + SESSION + b"\0\0\0\0\x01"), 16),
                (tls_crypt(V3, b"\0\0\0\0", 290), 15),
                (tls_crypt(V3, b"\x0e\0\0\0", 290), 12),
                (framed(V2 + SESSION + random(20) + b"\0\0\0\2" + TIME + NOTHING), 35),
                (framed(V2 + SESSION + random(32) + FIRST + TIME + b"\0\0\0\0\1"), 56),
                # Others that begin with a length of two bytes, or with a zero, are a no.
                *(
                    (bytes.fromhex(data), at)
                    for data, at in (
                        ("0036 1234 0100 0001 0000 0000 0000", 3),
                        (
                            "002a 3812 0100 0001 0000 0000 0000"
                            + b"\x03www\x10example-testing1\x03com\0".hex(),
                            32,
                        ),
                        ("00010000 2112a442", 2),
                        ("00000008 04d2162f", 2),
                        ("0056 0000 01000000", 3),
                        ("0016 4e 0000000d07df7fbd", 2),
                    )
                ),
            ],
            undecided=[
                *(
                    sample[: at - 1]
                    for sample, at in zip(
                        SAMPLES, (16, 44, 56, 88, 15, 15, 15, 16, 44, 15, 15), strict=True
                    )
                ),
            ],
        )
