"""The `sunrpc` matcher: the mark of the record and the header of the call."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of, datagram_verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.sunrpc import sunrpc
from txmux.testing import check_matcher, facts

# Recorded from nfs-ls of libnfs 4.0.0, with NFS 4 and with NFS 3, whose first call is to mountd; and from rpcinfo -p of rpcbind
# 1.2.6.
NFS = bytes.fromhex(
    "80000044 26ad4622 00000000 00000002 000186a3 00000004 00000000 000000010000001c00254622"
    "000000066c69626e6673" + "00" * 18
)
MOUNTD = bytes.fromhex(
    "80000044 26da4a96 00000000 00000002 000186a5 00000003 00000000 000000010000001c00254a96"
    "000000066c69626e6673" + "00" * 18
)
PORTMAPPER = bytes.fromhex(
    "80000058 129b92ef 00000000 00000002 000186a0 00000004 00000003 00000000000000000000000000000000"
    "000186a00000000200000003746370000000000f3132372e302e302e312e302e31313100000000086c69627469727063"
)
SAMPLES = (NFS, MOUNTD, PORTMAPPER)
# From nDPI's tests/cfgs/default/pcap/nfsv3.pcap: the port of mountd is asked for, NFS is tried, and called.
DATAGRAMS = (
    bytes.fromhex(
        "38434f690000000000000002000186a00000000300000003000000000000000000000000000000"
        "00000186a50000000300000003756470000000000000000000"
    ),
    bytes.fromhex(
        "38438a190000000000000002000186a3000000030000000000000000000000000000000000000000"
    ),
    bytes.fromhex(
        "5e1d0bdc0000000000000002000186a3000000030000000100000001000000343847760b000000"
        "09776572726d736368650000000000000000000001000000050000000100000000000000020000"
        "00030000001100000000000000000000002000101085000003e7000a00000000b25a0000002900"
        "0a00000000b25a00000029"
    ),
)
DECIDED_AT = 20
REFUSED = (
    (bytes.fromhex("00000044"), 1),
    (bytes.fromhex("80000027"), 4),
    (bytes.fromhex("82"), 1),
    (bytes.fromhex("80000044 26ad4622 00000001"), 12),
    (bytes.fromhex("80000044 26ad4622 00000000 00000003"), 16),
    (bytes.fromhex("80000044 26ad4622 00000000 00000002 00000000"), 20),
    # memcached, Thrift, and SSL 2.0.
    (bytes.fromhex("800c0008 00000000 00000008"), 12),
    (bytes.fromhex("80010001 00000004 70"), 9),
    (bytes.fromhex("802e0103 01001500 000010"), 11),
)


class ProgramTests(SynchronousTestCase):
    """``program=`` chooses by the program."""

    def test_contract(self) -> None:
        """Programs that are wanted match, by name or number; others are a no."""
        for text in ("nfs", "100003", "mountd,nfs", "portmapper, nfs", "1,100003,4294967295"):
            check_matcher(sunrpc, [(NFS, 20)], options={"program": text}, examples=10)
        check_matcher(
            sunrpc,
            [(MOUNTD, 20)],
            [(NFS, 20), (PORTMAPPER, 20)],
            {"program": "mountd"},
            examples=10,
        )

    def test_unusable(self) -> None:
        """Anything else is an error that says what would be right."""
        for text in ("", "nfs4", "0", "-1", "4294967296", "nfs,", "1.5", "٣"):
            error = self.assertRaises(OptionError, sunrpc.predicate, {"program": text})
            self.assertIn(
                "write one of portmapper nfs mountd nlockmgr status, or a number", str(error)
            )

    def test_learnt(self) -> None:
        """The program is a fact, by its name if it has one."""
        predicate = sunrpc.predicate({})
        other = NFS[:16] + (100_011).to_bytes(4, "big")
        for data, program in ((NFS, "nfs"), (MOUNTD, "mountd"), (other, "100011")):
            self.assertEqual(facts(predicate, Peeked(data)), {"program": program})
        self.assertEqual(facts(predicate, Peeked(NFS[:19])), {})


FIRST = DATAGRAMS[0]
# There is no mark, and what proves who calls has to fit.
REFUSED_DATAGRAMS = (
    NFS,
    FIRST[:7] + b"\1" + FIRST[8:],
    FIRST[:11] + b"\3" + FIRST[12:],
    FIRST[:12] + bytes(4) + FIRST[16:],
    FIRST[:27] + b"\4" + FIRST[28:],
    FIRST[:31] + b"\xff" + FIRST[32:],
    FIRST[:35] + b"\1" + FIRST[36:],
    FIRST[:39],
)


class DatagramTests(SynchronousTestCase):
    """Calls over UDP."""

    def test_program(self) -> None:
        """Programs are wanted by their names or numbers, and learnt."""
        verdict_of = datagram_verdicts_of(sunrpc)
        learn = datagram_facts_of(sunrpc)
        self.assertEqual([learn(one)["program"] for one in DATAGRAMS], ["portmapper", "nfs", "nfs"])
        self.assertIs(verdict_of(DATAGRAMS[1], program="100003"), Verdict.MATCH)
        self.assertIs(verdict_of(DATAGRAMS[1], program="mountd,nfs"), Verdict.MATCH)
        self.assertIs(verdict_of(DATAGRAMS[1], program="mountd"), Verdict.NO)
