from tests.matchers.asking import from_hex

BIND = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"
LONG_BIND = (
    b"\x30\x84\x00\x00\x00\x10\x02\x01\x05\x60\x84\x00\x00\x00\x07\x02\x01\x03\x04\x00\x80\x00"
)
START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

# BIND and START_TLS are recorded from ldapsearch of OpenLDAP 2.5.13, with -x and with -xZ; the others are written after
# RFC 4511, in long form as Windows does it.
SAMPLES = (
    BIND, LONG_BIND, START_TLS, b"\x30\x82\x01\x0a\x02\x02\x03\xe8\x63\x82\x01\x02\x04\x00\x0a\x01\x00",
    b"\x30\x05\x02\x01\x02\x42\x00",
)  # fmt: skip

# Made by hand as Windows looks for a domain controller ([MS-ADTS], section 6.3.3.2), and with short lengths; then recorded from
# net ads lookup of Samba 4.17.12.
DATAGRAMS = from_hex(
    "30840000007202010163840000006904000a01000a0100020100020100010100a08400000042a3"
    "84000000180409446e73446f6d61696e040b6578616d706c652e636f6da3840000000b0404486f"
    "73740403504331a3840000000d04054e7456657204040600000030840000000a04084e65746c6f"
    "676f6e",
    "302f020102632a04000a01000a0100020100020100010100870b6f626a656374436c617373300a"
    "04084e65746c6f676f6e",
    "3042020300f721633b04000a01000a0100020100020100010100a01ca30d04054e74566572040406"
    "000000a30b0403414143040400000000300a04084e65744c6f676f6e",
)
# The length of the request is a match.
DECIDED_AT = (7, 15, 7, 12, 7)
REFUSED = (
    (b"\x31", 1), (b"\x30\x80", 2), (b"\x30\x85", 2), (b"\x30\x04", 2), (b"\x30\x84\x01", 3),
    (b"\x30\x82\x00\x04", 4), (b"\x30\x0c\x04", 3), (b"\x30\x0c\x02\x05", 4),
    (b"\x30\x0c\x02\x00", 4), (b"\x30\x0c\x02\x01\x00", 5), (b"\x30\x0c\x02\x01\x80", 5),
    (b"\x30\x0c\x02\x01\x01\x61", 6), (b"\x30\x0c\x02\x01\x01\x60\x08", 7),
    (b"\x30\x0c\x02\x01\x01\x60\x81\x07", 8), (b"\x30\x05\x02\x04\x00\x00\x00\x01\x60\x00", 10),
    # tinc, git, SNMP and digits begin alike.
    (b"0 name 17.7\n", 3), (b"0032git-upload-pack /a", 3),
    (b"\x30\x26\x02\x01\x01\x04\x06public", 6), (b"\x30\x26\x02\x01\x00\x04\x06public", 5),
    (b"\x30\x3a\x02\x01\x03\x30\x0f", 6),
)  # fmt: skip
FIRST, SECOND, _ = DATAGRAMS
# Over UDP it is a search, whole, and nothing comes behind it.
REFUSED_DATAGRAMS = (
    FIRST[:-1], FIRST + b"\0", BIND, START_TLS, SECOND[:5] + b"\x04" + SECOND[6:],
    SECOND[:6] + b"\x7f" + SECOND[7:], SECOND[:3],
)  # fmt: skip
