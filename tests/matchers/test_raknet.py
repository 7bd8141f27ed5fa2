from tests.matchers.all_samples import Facts

MAGIC = bytes.fromhex("00ffff00fefefefefdfdfdfd12345678")
GUID = bytes(range(8))
# Made by hand, as RakPeer.cpp does: pings, and the two requests to open a connection, the first with padding.
DATAGRAMS = (
    b"\1" + bytes.fromhex("000000000000a1b2") + MAGIC + GUID, b"\1" + bytes.fromhex("000000000000a1b2") + MAGIC,
    b"\2" + bytes.fromhex("000000000000a1b2") + MAGIC + GUID, b"\5" + MAGIC + b"\x0b" + bytes(1446),
    b"\7" + MAGIC + bytes.fromhex("04 80ffffec 4abc 05d4") + GUID,
)  # fmt: skip
# Each has the magic number in its place.
MATCHED_DATAGRAMS = (b"\5" + MAGIC + b"\6",)
REFUSED_DATAGRAMS = (
    DATAGRAMS[0][:-1], DATAGRAMS[0] + b"\0", b"\3" + DATAGRAMS[0][1:], b"\1" + MAGIC + bytes(16),
    DATAGRAMS[3][:100] + b"\1" + DATAGRAMS[3][101:], b"\5" + MAGIC, b"\6" + MAGIC + bytes(16),
    b"\7" + MAGIC + bytes(16), b"\x84\0\0\0\x40\0\x90\0\0\0\x09",
)  # fmt: skip
# The version is learnt where it is told.
DATAGRAM_FACTS: Facts = (
    ("", DATAGRAMS[2], {}), ("", DATAGRAMS[3], {"version": "11"}), ("", DATAGRAMS[4], {}),
)  # fmt: skip
