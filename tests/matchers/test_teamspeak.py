INIT = b"TS3INIT1" + bytes.fromhex("0065 0000 88 063bece9")
# Made by hand, as the paper of ReSpeak has it: the first packet, and the third.
DATAGRAMS = (
    INIT + bytes.fromhex("00 5ce80c2a 4f1a2b3c 0000000000000000"),
    INIT + b"\2" + bytes(range(16)) + b"\x3c\x2b\x1a\x4f",
)
# All of the header counts, and the step.
REFUSED_DATAGRAMS = (
    INIT, INIT + b"\1" + bytes(20), b"TS3INIT2" + DATAGRAMS[0][8:], b"TS3INIT1" + bytes.fromhex("0065 88") + bytes(30),
    DATAGRAMS[0].replace(b"\x88", b"\x08"), b"T",
)  # fmt: skip
