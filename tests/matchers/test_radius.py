from tests.matchers.all_samples import Facts

# Recorded from radclient of FreeRADIUS 3.2.1: for access, accounting, and the status of the server.
DATAGRAMS = (
    bytes.fromhex(
        "011a002bdc119dadab8b32b0793553a961f5e0c40105626f62021230a0fb4281d1da318ece51e4c59de518"
    ),
    bytes.fromhex("045a002260440e8a8e212c12887af807305396120105626f622806000000012c0331"),
    bytes.fromhex("0c9e0026deaa6c965dcd8002ca5c58fbed11c4515012cab3ed99d8e567855d6ff07adb1e6ac3"),
)
HEAD = DATAGRAMS[0][4:20]
# The code, the length and the lengths of all attributes count.
MATCHED_DATAGRAMS = (
    *(bytes([code, 7, 0, 24]) + HEAD + b"\x04\x04ab" for code in (40, 43)),
    bytes([1, 7, 0, 22]) + HEAD + b"\x01\x02",
)
REFUSED_DATAGRAMS = (
    *(bytes([code]) + DATAGRAMS[0][1:] for code in (0, 2, 3, 5, 11, 13, 41, 44)), DATAGRAMS[0][:-1],
    DATAGRAMS[0] + b"\0", bytes([1, 7, 0, 20]) + HEAD, bytes([1, 7, 2, 22]) + HEAD + b"\x01\x02" * 257,
    bytes([1, 7, 0, 23]) + HEAD + b"\x01\x02\x01", bytes([1, 7, 0, 22]) + HEAD + b"\x01\x01",
    bytes([1, 7, 0, 22]) + HEAD + b"\x00\x02", bytes([1, 7, 0, 24]) + HEAD + b"\x01\x05ab",
)  # fmt: skip
DATAGRAM_FACTS: Facts = (
    ("", DATAGRAMS[0], {"user": "bob"}),
    ("", DATAGRAMS[1], {"user": "bob"}),
    ("", DATAGRAMS[2], {}),
)
