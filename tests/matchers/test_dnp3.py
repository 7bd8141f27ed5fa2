# From nDPI's tests/cfgs/default/pcap/dnp3.pcap: a master resets the link, and one asks at once; the last two are made by hand.
SAMPLES = (
    bytes.fromhex("056408c404000300b4b8 c0d7007ace05"),
    bytes.fromhex("056411c4040003004eef c2c2153c02063c03063c0406b1ec"),
    bytes.fromhex("056405c904000300b620"), bytes.fromhex("056405c001000004e921"),
)  # fmt: skip
DATAGRAMS = SAMPLES[:3]
DECIDED_AT = 10
REFUSED = (
    (b"\x05\x01\x00", 2),
    (bytes.fromhex("056404"), 3),
    # Of the other side, and functions that there are not.
    (bytes.fromhex("05640584"), 4), (bytes.fromhex("056405c1"), 4), (bytes.fromhex("056405ca"), 4),
    (bytes.fromhex("056408c404000300b4b9"), 10), (bytes.fromhex("056408c404000301b4b8"), 10),
)  # fmt: skip
# A datagram begins with such a header, too.
REFUSED_DATAGRAMS = (DATAGRAMS[0][:9], b"\x05\x64" + bytes(8))
