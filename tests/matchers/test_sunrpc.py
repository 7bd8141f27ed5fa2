"""The `sunrpc` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.errors import OptionError
from txmux.interfaces import Peeked
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
SAMPLES: tuple[bytes, ...] = (NFS, MOUNTD, PORTMAPPER)


class ContractTests(SynchronousTestCase):
    """The mark of the record and the header of the call."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            sunrpc,
            samples=[*((sample, 20) for sample in SAMPLES)],
            not_samples=[
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
            ],
            undecided=[sample[:19] for sample in SAMPLES],
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
