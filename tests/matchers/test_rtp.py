from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of, datagram_verdicts_of
from txmux.interfaces import Verdict
from txmux.matchers.rtp import rtp

verdict_of = datagram_verdicts_of(rtp)
facts_of = datagram_facts_of(rtp)
# Recorded from GStreamer 1.22: audio, the packet cut off, and a report of the sender with its description.
DATAGRAMS = (
    bytes.fromhex(
        "8080192543b279c833cd6a139e8f898686898e9cd21f100a0606090e1b44a2918a8786888d99bb26"
        "120b0706080d1835a9948b8786888c97af2c150c0706070c"
    ),
    bytes.fromhex(
        "80c800061bebdf8feeab8128ea849cb2445342ce0000001700005c0081ca000c1bebdf8f011b7573"
        "657236393536333936303240686f73742d653434336436643606094753747265616d657200000000"
    ),
)
SRTP = bytes.fromhex("90ef 0101 0a0b0c0d 11223344 bede 0001 10310000") + bytes(range(60))
ZRTP = bytes.fromhex("1000 0001 5a525450 11223344 505a 0003") + b"Hello   " + bytes(60)
# Queries of DNS with such a number; the SRT handshake after draft-sharabayko-srt-01; then from nDPI's fins.pcap and iax.pcap.
OTHERS = (
    *(bytes.fromhex(f"80{n:02x} 0100 0001 0000 0000 0000 0161 00 0001 0001") for n in range(256)),
    bytes.fromhex("80fb 2400 0001 0001 0000 0000 0161 00 0006 0001"),
    bytes.fromhex("80fb 2800 0001 0000 0003 0001 0161 00 0006 0001"),
    bytes.fromhex("80fb 0120 0001 0000 0000 0001 0161 00 0001 0001 00 0029 04d0 00000000 0000"),
    bytes.fromhex("8000000000000000 00001388 00000000 00000004 00000002") + bytes(40),
    bytes.fromhex("8000020000000000007a010100cccccc0001"),
    bytes.fromhex("800002000000006300ef050100"),
    bytes.fromhex(
        "8004000000000001000006010b020002010c343432303838323035313535020c3434373738323236"
        "3739343904000a02656eff04000000020c0200001f040b0c55d6"
    ),
)
FEEDBACK = bytes.fromhex("81ce 0002 11223344 00000000")
# Version, padding, sources, type and lengths count.
MATCHED_DATAGRAMS = (
    SRTP, ZRTP, FEEDBACK, bytes.fromhex("80c9 0001 11223344"),
    # A report of SRTCP: what comes behind the sender is encrypted.
    bytes.fromhex("81c9 0007 11223344") + bytes(range(24)) + bytes(14),
)  # fmt: skip
REFUSED_DATAGRAMS = (
    b"\x40" + DATAGRAMS[0][1:], b"\xa0" + DATAGRAMS[0][1:], b"\x81" + DATAGRAMS[0][1:], b"\x80\x40" + DATAGRAMS[0][2:],
    DATAGRAMS[0][:12], SRTP[:12] + bytes.fromhex("bedd") + SRTP[14:], SRTP[:14] + bytes.fromhex("0040") + SRTP[16:],
    SRTP[:20], DATAGRAMS[1][:20], bytes.fromhex("80c8 0005 11223344") + bytes(16),
    bytes.fromhex("81c9 0006 11223344") + bytes(20), bytes.fromhex("80ca 0001 11223344"), ZRTP[:27],
    b"\x10\0\0\1ZRTX" + ZRTP[8:], *OTHERS,
)  # fmt: skip
# The type of the payload is learnt if it is RTP.
DATAGRAM_FACTS: tuple[tuple[str, bytes, dict[str, str]], ...] = (
    ("", DATAGRAMS[0], {"payload_type": "0"}), ("", DATAGRAMS[1], {}), ("", SRTP, {"payload_type": "111"}),
)  # fmt: skip


class ContractTests(SynchronousTestCase):
    def test_random(self) -> None:
        """As the reference says, one in 600 datagrams of random bytes is taken for RTP."""
        rest = bytes(range(2, 70))
        taken = sum(
            verdict_of(bytes([first, second]) + rest) is Verdict.MATCH
            for first in (0x80, 0x90, 0x8F, 0x10)
            for second in range(256)
        )
        self.assertEqual(taken, 112)
