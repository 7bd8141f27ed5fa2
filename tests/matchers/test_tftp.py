# Recorded from curl 7.88.1, and from tftp-hpa 5.2: to read, and to write.
DATAGRAMS = (
    bytes.fromhex(
        "00017078656c696e75782e30006f63746574007473697a65003000626c6b73697a65003531320074"
        "696d656f7574003100"
    ),
    bytes.fromhex("0001666f6f2e62696e006f6374657400"),
    bytes.fromhex("000275702e747874006e6574617363696900"),
)
# A name, a mode and pairs of options fill the datagram.
MATCHED_DATAGRAMS = (b"\0\1/srv/tftp/\xc3\xa9 x.bin\0OcTeT\0", b"\0\2someone\0mail\0")
REFUSED_DATAGRAMS = (
    b"\0\3\0\1data", b"\0\1\0octet\0", b"\0\1name\0octet", b"\0\1name\0binary\0",
    b"\0\1na\nme\0octet\0", b"\0\1name\0octet\0blksize\0", b"\0\1" + b"a" * 256 + b"\0octet\0",
    b"\0\1name\0octet\0" + b"a\0b\0" * 17, b"\1\1name\0octet\0", b"\0",
)  # fmt: skip
DATAGRAM_FACTS = tuple(
    ("", datagram, {"path": path})
    for datagram, path in zip(DATAGRAMS, ("pxelinux.0", "foo.bin", "up.txt"), strict=True)
)
