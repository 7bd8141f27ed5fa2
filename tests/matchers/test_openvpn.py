from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_verdicts_of, from_hex, rows_from_hex
from txmux.interfaces import Verdict
from txmux.matchers.openvpn import openvpn

V1, V2, V3 = b"\x08", b"\x38", b"\x50"
SESSION = bytes.fromhex("7f3a91c4d2085be6")
TIME = bytes.fromhex("6553f2a1")
FIRST, EARLY, OTHER = (bytes.fromhex(f"{start}0001") for start in ("0000", "0f00", "0a01"))
NOTHING = bytes(5)


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def random(size: int) -> bytes:
    """Make bytes that stand for an HMAC or for what is encrypted."""
    return bytes((index * 73 + 41) % 256 for index in range(size))


def tls_auth(size: int) -> bytes:
    return framed(V2 + SESSION + random(size) + FIRST + TIME + NOTHING)


def tls_crypt(opcode: bytes, packet_id: bytes, key: int = 0) -> bytes:
    """Make a reset with --tls-crypt, or with --tls-crypt-v2 and a wrapped key of that size."""
    wrapped = random(key)[2:] + key.to_bytes(2, "big") if key else b""
    return framed(opcode + SESSION + packet_id + TIME + random(32 + 5) + wrapped)


# Resets made by hand as OpenVPN 2.6's write_control_auth and tls_crypt_wrap put them together: plain; --tls-auth with SHA1, SHA256
# and SHA512; --tls-crypt; --tls-crypt-v2 of 2.6 and of 2.5.
SAMPLES = (
    framed(V2 + SESSION + NOTHING), tls_auth(20), tls_auth(32), tls_auth(64), tls_crypt(V2, FIRST),
    tls_crypt(V3, EARLY, key=299), tls_crypt(V3, FIRST, key=299),
    # Recorded from OpenVPN 2.6.14: plain, with --tls-auth, with --tls-crypt, and the beginning with --tls-crypt-v2.
    *from_hex(
        "000e 38 dbfddc6e0b13ddb0 00 00000000",
        "002a 38 c9fb44d1af1bdb4b 2f9b0995a76875fd8ed74753b12ea3c4495a81d1 00000001 6b001b70 00 00000000",
        "0036 38 31187f2a9d372220 00000001 6b001b73 4cbb99fc6fd992ea774cd39b12cfdd00"
        "e69fa3ab6fbc25a0bf4e372318b96d58 34c27716ca58",
        "0161 50 c5606f8a3485d653 0f000001 6b001b76 aaa27ca6e604f3844028ae505e1545bc",
    ),
)  # fmt: skip
WRAPPED_KEY = bytes.fromhex(
    "e4dacd69d01e02ee7a809c449dac894376c34e2c57560b35d89439f986872f47a6dc7d308b117672"
    "b4b56f2b5e1374657d56975f9f9b49bac53f40111464202b9c0655f161ff846a5a0145fa706af185"
    "132768521019539ba17b725239e3ddc7082eecb3c2b210cc4232ebe76cdcce01c9489a26c2792ace"
    "014e69b419068acf00e4fb427469b5fed02c6470c42ba40ce19aa135126637c78faf4b661a2670ee"
    "b9b7120e71eeaa764b7c8b136faeb9a9a8e517cc723cdbbd6b9d14441c7f4bc9eb476bd3c4bd864d"
    "b2a146baa3bc5c128a1aa0239e8d5041b34d07aa3463f2620268973dcf0b52bc213119b7bd476789"
    "86bace4d8b2d747669c277e1b978eff0d02a28eca796adc364eecf03330a69f400416811308755a5"
    "c29fe99d778966240722aaeb78586f9d9b012b"
)
# Recorded from OpenVPN 2.6.14 over UDP: plain, with --tls-auth by SHA-1 and by SHA-256, with --tls-crypt; the
# second attempts of the last three; and those with --tls-crypt-v2.
DATAGRAMS = (
    *from_hex(
        "387e789d4365a192100000000000",
        "38111c41a0033aa510cbc4d820f3a6236be9b65b50ba6e2bd225d55e34000000016b00fd060000000000",
        "3818154b51b142be757bd2e279dcaef7d6482a7c2277f3dd97a096aa93abb9de341c534be1d5bf14"
        "49000000016b00fd0b0000000000",
        "388b5b57ffb3aec11b000000016b00fd0f981a82df4b4b3f4670e54f1eb3028bfef0311bba4fe0e8"
        "b3b22657020f62d45057f6da0019",
        "38111c41a0033aa5103e152eae0352ea9256aa24cfbceaac313ec94d53000000026b00fd060000000000",
        "3818154b51b142be75f90ec675ca8631cce96c1e2ce0635abf317199a5584d53868110fd79c7e05f"
        "6d000000026b00fd0b0000000000",
        "388b5b57ffb3aec11b000000026b00fd0f9b7e3f0f7a5fe874280afe9f472a01c82dec9106d6583a"
        "90680b2747d1d7b87c05f753495e",
    ),
    # The last is from nDPI's tests/cfgs/default/pcap/openvpn-tlscrypt.pcap, with another wrapped key.
    *(packet + WRAPPED_KEY for packet in from_hex(
        "509305aace9af37b730f0000016b00fd13778885b46e01c2c0d58e7a409ca72f8efc6e8f24188bc8"
        "9f6814e97dba8d21291e7113d01e",
        "509305aace9af37b730f0000026b00fd13d71219f380a7d78820da2fee60eeb8da0498d4bc210181"
        "08c18618fb292e3293d895dfe3d8",
        "50aae06512392a3d710a010001625a9e9785ead7700d5d18dac8f1eb9b317b46a2fc3519cab585d1"
        "34a9251798df506f18831d1778e9",
    )),
)  # fmt: skip
# With encryption the packet's ID decides, else the end of the packet.
DECIDED_AT = (16, 44, 56, 88, 15, 15, 15, 16, 44, 15, 15)
MATCHED = (
    *((sample + sample, at) for sample, at in zip(SAMPLES, DECIDED_AT, strict=True)),
    # All sizes of digests are known.
    *((tls_auth(size), 2 + 22 + size) for size in (16, 20, 28, 32, 36, 48, 64)),
    # Clients with key method 1, before 2.5, have another opcode.
    (framed(V1 + SESSION + NOTHING), 16),
    # A wrapped key has 290 to 1024 bytes.
    *((tls_crypt(V3, EARLY, size), 15) for size in (290, 1024)),
    (tls_crypt(V3, bytes.fromhex("0f000000"), 290), 15),
    # Its length at the end tells it where the ID begins with other numbers.
    *((packet, len(packet)) for packet in (tls_crypt(V3, OTHER, 290), tls_crypt(V3, OTHER, 1024))),
)
REFUSED = (
    *((tls_crypt(V3, EARLY, size), at) for size, at in ((289, 2), (1025, 2))),
    (b"\x05", 1), (b"\x00\x0d", 2), (b"\x00\x0f", 2), (b"\x00\x0e\x39", 3), (b"\x00\x0e\x40", 3),
    (b"\x00\x0e\x50", 3), (b"\x01\x60\x38", 3), (b"\x00\x0e\x38" + bytes(8), 11),
    (framed(V2 + SESSION + b"\x01\0\0\0\0"), 12), (framed(V2 + SESSION + b"\0\0\0\0\x01"), 16),
    (tls_crypt(V3, b"\0\0\0\0", 290), 15), (tls_crypt(V3, OTHER[:3] + b"\2", 290), 15),
    (tls_crypt(V3, OTHER, 290)[:-1] + b"\0", 2 + 54 + 290),
    # The counts of DNS are where the session has its random number.
    *(
        (framed(V2 + bytes.fromhex(counts) + FIRST + TIME + random(32 + 5)), 11)
        for counts in ("c50000 0001 0000 00", "c52400 0001 0001 00")
    ),
    (framed(V2 + SESSION + random(20) + b"\0\0\0\2" + TIME + NOTHING), 35),
    (framed(V2 + SESSION + random(32) + FIRST + TIME + b"\0\0\0\0\1"), 56),
    *rows_from_hex(
        ("0036 1234 0100 0001 0000 0000 0000", 3),
        (
            "002a 3812 0100 0001 0000 0000 0000"
            + b"\x03www\x10example-testing1\x03com\0".hex(),
            11,
        ),
        ("00010000 2112a442", 2), ("00000008 04d2162f", 2), ("0056 0000 01000000", 3),
        ("0016 4e 0000000d07df7fbd", 2),
    ),
)  # fmt: skip
# A client repeats its packet until it is answered, a few times.
MATCHED_DATAGRAMS = (*(sample[2:] for sample in SAMPLES[:-2]),)
REFUSED_DATAGRAMS = (
    *(one + b"\0" for one in DATAGRAMS[:4]), *(one[:-1] for one in DATAGRAMS[:4]),
    *(b"\x40" + one[1:] for one in DATAGRAMS), *(b"\x39" + one[1:] for one in DATAGRAMS),
    V2 + bytes(8) + NOTHING, V3 + SESSION + EARLY + TIME + random(32 + 5 + 1025),
    DATAGRAMS[7][:-1] + b"\0",
    b"\x48\0\0\1" + random(60),  # data
)  # fmt: skip


class DatagramTests(SynchronousTestCase):
    def test_the_eighth_attempt_is_one_the_ninth_is_not(self) -> None:
        verdict_of = datagram_verdicts_of(openvpn)
        for number, verdict in ((8, Verdict.MATCH), (9, Verdict.NO)):
            packet_id = bytes([0, 0, 0, number])
            for packet in (
                V2 + SESSION + packet_id + TIME + random(32 + 5),
                V2 + SESSION + random(20) + packet_id + TIME + NOTHING,
                tls_crypt(V3, b"\x0f" + packet_id[1:], key=299)[2:],
            ):
                self.assertIs(verdict_of(packet), verdict, (number, packet))
