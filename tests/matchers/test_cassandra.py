OPTIONS = b"\x04\x00\x00\x00\x05\x00\x00\x00\x00"
STARTUP = b"\x04\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0"

# Written after the specifications, with the versions that the DataStax drivers for Java and Python try first.
SAMPLES = (
    OPTIONS, STARTUP, b"\x05" + STARTUP[1:], b"\x05\x10" + OPTIONS[2:], b"\x03" + OPTIONS[1:],
    b"\x41" + STARTUP[1:],
    b"\x42" + OPTIONS[1:],  # recorded from the driver for Python, 3.25.0
)  # fmt: skip
RDP = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00"
# The header of an OPTIONS or STARTUP frame is a match, in every version.
DECIDED_AT = 9
REFUSED = (
    (b"\x02\x00\x00\x05", 1), (b"\x84" + OPTIONS[1:], 1), (b"\x04\x01" + STARTUP[2:], 2),
    (b"\x04\x00\xff\xff\x05", 3), (b"\x04\x00\x00\x00\x07\x00\x00\x00\x20", 5),
    (OPTIONS[:8] + b"\x01", 9), (STARTUP[:8] + b"\x05", 9), (STARTUP[:5] + b"\x00\x01\x00\x00", 7),
    # RDP, SOCKS 4 and SOCKS 5 begin with the same bytes as versions 3, 4 and 5.
    (RDP, 5), (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", 2),
    (b"\x04\x02\x00\x50\x01\x00\x00\x00\x00", 2), (b"\x05\x01\x00", 2), (b"\x05\x02\x00\x02", 2),
    (b"BFP/1.0\r\n", 2),
)  # fmt: skip
