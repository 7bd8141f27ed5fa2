from tests.matchers.all_samples import MATCH, NO, Facts
from tests.matchers.asking import from_hex

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
DATAGRAMS = from_hex(
    "38434f690000000000000002000186a00000000300000003000000000000000000000000000000"
    "00000186a50000000300000003756470000000000000000000",
    "38438a190000000000000002000186a3000000030000000000000000000000000000000000000000",
    "5e1d0bdc0000000000000002000186a3000000030000000100000001000000343847760b000000"
    "09776572726d736368650000000000000000000001000000050000000100000000000000020000"
    "00030000001100000000000000000000002000101085000003e7000a00000000b25a0000002900"
    "0a00000000b25a00000029",
)
DECIDED_AT = 20
REFUSED = (
    (bytes.fromhex("00000044"), 1), (bytes.fromhex("80000027"), 4), (bytes.fromhex("82"), 1),
    (bytes.fromhex("80000044 26ad4622 00000001"), 12),
    (bytes.fromhex("80000044 26ad4622 00000000 00000003"), 16),
    (bytes.fromhex("80000044 26ad4622 00000000 00000002 00000000"), 20),
    # memcached, Thrift, and SSL 2.0.
    (bytes.fromhex("800c0008 00000000 00000008"), 12), (bytes.fromhex("80010001 00000004 70"), 9),
    (bytes.fromhex("802e0103 01001500 000010"), 11),
)  # fmt: skip


FIRST, NULL = DATAGRAMS[:2]
# There is no mark, and what proves who calls has to fit.
REFUSED_DATAGRAMS = (
    NFS, FIRST[:7] + b"\1" + FIRST[8:], FIRST[:11] + b"\3" + FIRST[12:],
    FIRST[:12] + bytes(4) + FIRST[16:], FIRST[:27] + b"\4" + FIRST[28:],
    FIRST[:31] + b"\xff" + FIRST[32:], FIRST[:35] + b"\1" + FIRST[36:], FIRST[:39],
    # All that is encoded has a multiple of four bytes, and procedure 0 has no arguments.
    FIRST + b"\0", FIRST[:23] + b"\0" + FIRST[24:],
    # What asks for any version calls procedure 0; no other number is as large.
    FIRST[:19] + b"\0" + FIRST[20:], FIRST[:16] + b"\0\1" + FIRST[18:], FIRST[:20] + b"\0\1" + FIRST[22:],
)  # fmt: skip
# As rpcinfo asks for the versions that there are, and as a context of GSS is begun (RFC 2203, section 5.2.2).
MATCHED_DATAGRAMS = (
    NULL[:16] + bytes(4) + NULL[20:], NULL[:16] + b"\xff" * 4 + NULL[20:],
    NULL[:24] + bytes.fromhex("00000006 00000004 00000001 00000000 00000000") + bytes(64),
)  # fmt: skip
OTHER = NFS[:16] + (100_011).to_bytes(4, "big")
# Programs that are wanted match, by name or number; others are a no.
NFS_AMONG = "nfs", "100003", "mountd,nfs", "portmapper, nfs", "1,100003,4294967295"
VERDICTS = (
    *(({"program": text}, NFS, MATCH, 20) for text in NFS_AMONG),
    ("program=mountd", MOUNTD, MATCH, 20), *(("program=mountd", one, NO, 20) for one in (NFS, PORTMAPPER)),
)  # fmt: skip
DATAGRAM_VERDICTS = (
    *((f"program={text}", DATAGRAMS[1], MATCH) for text in ("100003", "mountd,nfs")),
    ("program=mountd", DATAGRAMS[1], NO),
)
TRIED = ("program=mountd", "program=1,100003,4294967295")
FACTS: Facts = (
    ("", NFS, {"program": "nfs"}), ("", MOUNTD, {"program": "mountd"}),
    ("", OTHER, {"program": "100011"}), ("", NFS[:19], {}),
)  # fmt: skip
DATAGRAM_FACTS = tuple(
    ("", datagram, {"program": program})
    for datagram, program in zip(DATAGRAMS, ("portmapper", "nfs", "nfs"), strict=True)
)
UNUSABLE = tuple(
    (f"program={text}", "write one of portmapper nfs mountd nlockmgr status, or a number")
    for text in ("", "nfs4", "0", "-1", "4294967296", "nfs,", "1.5", "٣")
)
