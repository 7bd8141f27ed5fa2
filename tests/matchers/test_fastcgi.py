# The beginnings of what these send: nginx 1.22.1, cgi-fcgi of FastCGI 2.4.2, and a client in nDPI's fastcgi.pcap that keeps the
# connection. Then one made by hand after the specification: an authorizer.
SAMPLES = (
    bytes.fromhex("0101000100080000 0001000000000000 0104000101ec0400 0c03") + b"QUERY_STRINGx=1",
    bytes.fromhex("0101000100080000 0001000000000000 0104000107430500 0a03") + b"IS_SANDBOXyes",
    bytes.fromhex("0101000100080000 0001010000000000 0104000104170000 0a0c") + b"SCRIPT_URL/api",
    bytes.fromhex("0101ffff00080000 0002000000000000"),
)
DECIDED_AT = 11
REFUSED = (
    (b"\2", 1), (b"\1\4", 2), (b"\1\1\0\0", 4), (bytes.fromhex("010100010009"), 6),
    (bytes.fromhex("01010001000800000000"), 10), (bytes.fromhex("01010001000800000004"), 10),
    (bytes.fromhex("0101000100080000000102"), 11),
    # DICOM.
    (bytes.fromhex("0100000000cd0001"), 2),
)  # fmt: skip
