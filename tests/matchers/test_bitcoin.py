MAGICS = tuple(map(bytes.fromhex, ("f9beb4d9", "0b110907", "1c163f28", "0a03cf40", "fabfb5da")))
VERSION = b"version" + bytes(5)
# The lengths, the checksum and the protocol version of a message as Bitcoin Core 25 sends it.
SAMPLES = tuple(
    magic + VERSION + bytes.fromhex("66000000 5f1a69d2 80110100 0904000000000000")
    for magic in MAGICS
)
# They are enough, whatever the network.
DECIDED_AT = 16
REFUSED = (
    # Another magic, another command and other padding are a no at the byte that shows it.
    (b"\xf9\xbe\xb4\xd8" + VERSION, 4), (b"\xf9\x11\x09\x07" + VERSION, 2),
    (MAGICS[0] + b"verack", 8), (MAGICS[0] + b"version\0\0\0\0x", 16),
)  # fmt: skip
