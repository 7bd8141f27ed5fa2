def packet(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


SMB1 = packet(
    b"\xffSMB\x72%b\x18\x53\xc8%b\xff\xff\xff\xfe%b\x22\x00" % (bytes(4), bytes(12), bytes(5))
    + b"\x02NT LM 0.12\x00\x02SMB 2.002\x00\x02SMB 2.???\x00"
)
SMB2 = packet(
    bytes.fromhex("fe534d42 4000 0100 00000000 0000 1f00" + "00" * 48)
    + bytes.fromhex("2400 0300 0100 0000 7f000000" + "00" * 24 + "0202 1002 0003")
)
CALLED = b"\x20CKFDENECFDEFFCFGEFFCCACACACACACA\x00"
CALLING = b"\x20EMEPEDEBEMEIEPFDFECACACACACACAAA\x00"
SESSION_REQUEST = b"\x81\x00\x00\x44" + CALLED + CALLING

# Written after the specifications: Windows before and after it knows the server's versions, and NetBIOS for *SMBSERVER.
SAMPLES = (
    *(SMB1, SMB2, SESSION_REQUEST),
    # The beginnings of what smbclient 4.17.12 sends, by default and with SMB 1.
    b"\0\0\0\xe2\xfeSMB@%b\x1f%b$\0\5\0\1\0\0\0\x7f\0\0\0" % (bytes(9), bytes(49)),
    b"\0\0\0\xbe\xffSMBr\0\0\0\0\x18C\xc8%b\xfe\xff\0\0\0\0\0\x9b\0\2PC NETWORK" % bytes(14),
)  # fmt: skip
# A negotiate request of either kind is a match, a session request one with the end of the called name.
MATCHED = (SMB1, 9), (SMB2, 10), (SESSION_REQUEST, 38)
REFUSED = (
    (b"\x01", 1), (b"\x00\x01", 2), (b"\x00\x00\x00\x22", 4), (b"\x00\x00\x00\x80\xfdSMB", 5),
    (b"\x00\x00\x00\x80\xfeSMBr", 9), (b"\x00\x00\x00\x80\xffSMB\x73", 9), (b"\x00\x00\x00\x80\xfeSMC", 8),
    (b"\x81\x01", 2), (b"\x81\x00\x00\x45", 4), (b"\x81\x00\x00\x44\x21", 5), (b"\x81\x00\x00\x44\x20Q", 6),
    (SESSION_REQUEST[:37] + b"\x01", 38), (b"\x00\x00\x00\x38\x00\x03\x00\x00user", 5),
    (b"\x00\x00\x00\x2d\x00\x00\x00\x00", 5), (b"\x00\x00\x00\x2b\x00\x12\x00\x03", 5),
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42", 2), (b"\x00\x4a\x00\x00\x01", 2), (bytes(24), 4),
)  # fmt: skip
