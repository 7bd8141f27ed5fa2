from tests.matchers.asking import rows_from_hex


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def new_name(flags: int, name: bytes, extra: bytes = b"") -> bytes:
    creation = bytes.fromhex("6553f2a1")
    size = len(name).to_bytes(2, "big")
    return framed(b"N" + flags.to_bytes(8, "big") + creation + size + name + extra)


def alive(name: bytes, node_type: bytes = b"M") -> bytes:
    size = len(name).to_bytes(2, "big")
    start = b"x" + bytes.fromhex("a3d1") + node_type + bytes.fromhex("00 0006 0005")
    return framed(start + size + name + b"\0\0")


OTP_25 = 0x0000000D07DF7FBD
NAME_ME = 1 << 33

# Made by hand after the protocol's description; the 64 flags are those of Erlang/OTP 25 (erts 13.2).
SAMPLES = (
    new_name(OTP_25, b"a@example"), new_name(OTP_25 | NAME_ME, b"example"),
    framed(b"n" + bytes.fromhex("0005 00077fbd") + b"b@192.0.2.1"), alive(b"rabbit"),
    framed(b"z" + b"rabbit"), framed(b"n"), framed(b"d"), framed(b"k"), framed(b"s" + b"rabbit"),
)  # fmt: skip
MATCHED = (
    # The end of the name decides, whatever follows it.
    *((sample, len(sample)) for sample in SAMPLES[:3]),
    (new_name(OTP_25, b"a@b", b"more"), 20),
    (new_name(OTP_25, b"a@" + b"b" * 1018), 1037),
    # The end of the name decides, or the kind of the request if there is no name.
    *zip(SAMPLES[3:], (19, 9, 3, 3, 3, 9), strict=True),
    (alive(b"c", b"H"), 14),
)
REFUSED = (
    # A name has exactly one @, or none if the node asks for a name; and no blanks.
    *(
        (new_name(OTP_25, name), at)
        for name, at in ((b"ab", 19), (b"a@b@c", 21), (b"@a", 18), (b"a b@c", 19))
    ),
    (new_name(OTP_25 | NAME_ME, b"a@b"), 19),
    (framed(b"n\0\5\0\7\x7f\xbdab"), 11),
    # Flags without which no node is let in have to be there.
    *(
        (new_name(flags, b"a@b"), at)
        for flags, at in (
            (OTP_25 & ~(1 << 24), 8), (OTP_25 & ~0x100, 10), (OTP_25 & ~4, 11),
        )
    ),
    (framed(b"n\0\5\0\7\x7e\xbda@b"), 8),
    # The lengths have to agree.
    *rows_from_hex(
        ("0800", 1), ("0000", 2), ("000f 4e", 3), ("0007 6e", 3), ("0404 6e", 3),
        ("0015 6e 0006", 5), ("0012 4e 0000000d07df7fbd 6553f2a1 0004", 17),
    ),
    (framed(b"x"), 3), (framed(b"y" + b"rabbit"), 3), (framed(b"zrab@bit"), 7),
    (framed(b"z\x01\x00"), 4), (alive(b"a", b"K"), 6), (b"\x00\x0d\x78", 3),
    (b"\x00\x0e\x78\x00\x00", 5), (b"\x00\x0e\x78\x11\x51\x4d\x01", 7),
    (b"\x00\x0e\x78\x11\x51\x4d\x00\x00\x04", 9),
    (b"\x00\x0e\x78\x11\x51\x4d\x00\x00\x05\x00\x05\x00\x02", 13),
    # Their third byte, or what follows it, is a no.
    *rows_from_hex(
        ("000e38", 3), ("001d 4e00 0000 0001 0000 0000 0000", 10), ("001d 7a6e 0100", 5),
        ("00010000 2112a442", 3), ("00000008 04d2162f", 2), ("00a1 0000 01000000", 3),
    ),
)  # fmt: skip
