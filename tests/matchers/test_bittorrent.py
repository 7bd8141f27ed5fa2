from tests.matchers.asking import from_hex

# The reserved bytes of libtorrent (extensions, DHT, fast) and of qBittorrent; hash and peer as BEP 3 and BEP 20 say.
SAMPLES = (
    b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05"
    + bytes.fromhex("dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c")
    + b"-qB4650-)1ZrSdGq9CxK",
    b"\x13BitTorrent protocol"
    + bytes(8)
    + bytes.fromhex("2b66980093bc11806fab50cb3cb41835b95a0362"),
)
# Recorded from libtorrent 2.0.8: to a tracker, uTP, the DHT; and the DHT from aria2 1.36.
DATAGRAMS = from_hex(
    "000004172710198000000000999142f3",
    "4100f8aade6e49650000000000000000052f0000",
    "64313a6164323a6273693165323a696432303a336f7421d09a438a4819632e76b1c764205c722739"
    "3a696e666f5f6861736832303a336f7421d09a438a4819632ee110ec3a9565146165313a71393a67"
    "65745f7065657273313a74323af02d313a76343a4c540208313a79313a7165",
    "64313a6164323a696432303a5e03a55bbb2ad750c17eb0518815a4017e3a2f3e65313a71343a7069"
    "6e67313a74343a5c7052d8313a76343a41320003313a79313a7165",
)
# They are enough.
DECIDED_AT = 20
REFUSED = (
    (b"BitTorrent protocol", 1), (b"\x13\x02rest", 2), (b"\x13BitTorrent Protocol", 13),
)  # fmt: skip


TRACKER, UTP, DHT, _ = DATAGRAMS
NODE = b"2:id20:" + bytes(20)
# Each has its form, up to the end of the datagram.
MATCHED_DATAGRAMS = (
    UTP[:1] + b"\2" + UTP[2:] + b"\0\x08" + bytes(8),
    UTP[:1] + b"\1" + UTP[2:] + b"\2\4" + bytes(4) + b"\0\x08" + bytes(8),
    b"d1:ad" + NODE + b"e1:q4:ping1:t0:1:y1:qe",
    b"d1:ad" + NODE + b"1:xlld1:ai-5eeeee1:q4:ping1:t2:aa1:y1:qe",
)
REFUSED_DATAGRAMS = (
    TRACKER[:-1], TRACKER + b"\0", TRACKER[:11] + b"\1" + TRACKER[12:], b"\x31" + UTP[1:], b"\x42" + UTP[1:],
    UTP[:1] + b"\3" + UTP[2:] + b"\0\4" + bytes(4), UTP[:1] + b"\2" + UTP[2:], UTP[:8] + b"\0\0\0\1" + UTP[12:],
    UTP[:19] + b"\1", UTP + b"\0", DHT[:-1], DHT + b"e", DHT.replace(b"1:y1:q", b"1:y1:r"),
    b"d1:ad2:id19:" + bytes(19) + b"e1:q4:ping1:t2:aa1:y1:qe", b"d1:ad" + NODE + b"e1:q4:ping1:y1:qe",
    b"d1:a" + b"l" * 20 + b"e" * 20 + b"1:q4:ping1:t2:aa1:y1:qe", b"d1:a4:spam1:q4:ping1:t2:aa1:y1:qe", b"d1:ai12",
    b"d1:ad" + NODE + b"1:v2048:" + bytes(2048) + b"e1:q4:ping1:t2:aa1:y1:qe", b"de", b"d",
)  # fmt: skip
