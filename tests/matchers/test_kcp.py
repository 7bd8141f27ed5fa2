import struct

from tests.matchers.all_samples import MATCH, NO


def segment(conv: int, command: int = 81, data: bytes = b"", fragment: int = 0) -> bytes:
    """Make a segment as ``ikcp_encode_seg`` does."""
    return (
        struct.pack("<IBBHIIII", conv, command, fragment, 128, 1717171717, 0, 0, len(data)) + data
    )


# Made by hand: data in two segments, a window probe, and what an answer to it says.
DATAGRAMS = (
    segment(0x11223344, data=b"hello", fragment=1) + segment(0x11223344, data=b"world"),
    segment(1, 83), segment(1, 82) + segment(1, 84),
)  # fmt: skip
# The command, the session and the lengths count.
MATCHED_DATAGRAMS = (segment(0, data=bytes(1376)),)
REFUSED_DATAGRAMS = (
    segment(1, 80), segment(1, 85), segment(1)[:-1], segment(1, data=b"abc")[:-1], segment(1, data=b"abc") + b"d",
    segment(1) + segment(2), segment(1, 82, b"abc"), segment(1, 82, fragment=1), segment(1) * 129, bytes(24),
)  # fmt: skip
DATAGRAM_VERDICTS = (
    ("conv=7,0x11223344", DATAGRAMS[0], MATCH), ("conv=287454020", DATAGRAMS[0], MATCH),
    ("conv=7,0x11223344", DATAGRAMS[1], NO), ("conv=1", DATAGRAMS[1], MATCH),
)  # fmt: skip
DATAGRAM_FACTS = (("", DATAGRAMS[0], {"conv": "287454020"}),)
UNUSABLE = tuple(
    (f"conv={text}", "is not the number of a session")
    for text in ("", "-1", "4294967296", "0x", "0x123456789", "1,,2", "one")
)
