# Recorded from quakestat 2.17; and by hand as the Source SDK and GoldSrc send it, the players.
DATAGRAMS = (
    bytes.fromhex("ffffffff54536f7572636520456e67696e6520517565727900"),
    b"\xff\xff\xff\xffq\xde\xad\xbe\xef0000000000\0", b"\xff\xff\xff\xffgetchallenge steam\n",
)  # fmt: skip
CHALLENGE = b"\x4b\xa1\xd5\x22"
# Each query has one form.
MATCHED_DATAGRAMS = (
    DATAGRAMS[0] + CHALLENGE, *(b"\xff\xff\xff\xff" + letter + b"\xff\xff\xff\xff" for letter in (b"U", b"V")),
    b"\xff\xff\xff\xffV\n\n\n\n", b"\xff\xff\xff\xffW", b"\xff\xff\xff\xffi", b"\xff\xff\xff\xffi\0",
    b"\xff\xff\xff\xffgetchallenge\n",
)  # fmt: skip
REFUSED_DATAGRAMS = (
    DATAGRAMS[0][:-1], DATAGRAMS[0] + b"\0", b"\xfe" + DATAGRAMS[0][1:], b"\xff\xff\xff\xffU\xff\xff",
    b"\xff\xff\xff\xffI\x11name\0", b"\xff\xff\xff\xffgetstatus\n", b"\xff\xff\xff\xff", b"\xff",
)  # fmt: skip
