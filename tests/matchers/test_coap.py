# Recorded from coap-client of libcoap 4.3.1: to read, to write, and to observe without confirmation.
DATAGRAMS = (
    bytes.fromhex("4101072201bb2e77656c6c2d6b6e6f776e04636f7265"),
    bytes.fromhex("44034a0e746f6b32b56c69676874ff6f6e"),
    bytes.fromhex("5101a39801605b74656d7065726174757265"),
)

# Recorded from coap-client of libcoap 4.3.1, and from aiocoap 0.4.14, which goes on with a request; the last is made by hand, with
# more options than twelve bytes.
SAMPLES = (
    bytes.fromhex("50e1 23800100 20"), bytes.fromhex("50e1 23100000 20 2201219db178"),
    bytes.fromhex("20e1 40 60"), bytes.fromhex("d002 e1 23100000 20 e9 0100 0000000000000000"),
)  # fmt: skip
DECIDED_AT = (3, 3, 3, 4)
REFUSED = (
    # A token, a length of two bytes, and no options or one byte of them.
    (b"\x51", 1), (b"\xe0", 1), (b"\x00\xe1", 1), (b"\x10\xe1\x40", 1),
    # A request, and a length that is too short.
    (b"\x50\x01", 2), (b"\x50\xe1\x20", 3), (b"\x50\xe1\x25", 3), (b"\x50\xe1\x41", 3),
    (b"\x20\xe1\x22", 3), (b"PUT / HTTP/1.1", 2),
)  # fmt: skip
# The version, the kind, the code and all options count.
MATCHED_DATAGRAMS = (
    bytes.fromhex("4001 0001"), bytes.fromhex("4801 0001 0102030405060708 b161"),
    bytes.fromhex("4007 0001 ff00"),
    # Uri-Path of 20 bytes; a size, number 60; a private option.
    bytes.fromhex("4001 0001 bd07") + b"a" * 20, bytes.fromhex("4001 0001 d12f 05"),
    bytes.fromhex("4001 0001 e1 1000 05"),
)  # fmt: skip
REFUSED_DATAGRAMS = (
    bytes.fromhex("4000 0001"),  # a ping
    bytes.fromhex("4008 0001"), bytes.fromhex("4045 0001"), bytes.fromhex("6001 0001"),
    bytes.fromhex("8001 0001"), bytes.fromhex("4901 0001 010203040506070809"),
    bytes.fromhex("4101 0001"), bytes.fromhex("4001 0001 ff"), bytes.fromhex("4001 0001 f1 61"),
    bytes.fromhex("4001 0001 1f 61"), bytes.fromhex("4001 0001 b2 61"),
    bytes.fromhex("4001 0001 00"),  # option 0
    bytes.fromhex("4001 0001 d0 14"),  # 33, which is unknown and has to be understood
    bytes.fromhex("4001 0001 51 00"),  # If-None-Match with a value
    bytes.fromhex("4001 0001 30"),  # Uri-Host without one
    bytes.fromhex("4001 0001 e0 ffff e0 ffff"),
    # What GX Works and melsecq-discover-udp.nse send to controllers of Mitsubishi.
    bytes.fromhex(
        "57010000001111070000ffff030000fe0300001e001c0a1614"
        "00000000000000000000000000000000000000000b2001000000"
    ),
    bytes.fromhex("57020000001111070000ffff030000fe03000014001c080a08"),
    # The echo of GTP version 2, after 3GPP TS 29.274, section 7.1.1, with a number that makes it options.
    bytes.fromhex("4001 0009 10072b 00 03 0001 00 05"),
    bytes.fromhex("4001 000e 10072b 00 03 0001 00 05 98 0001 00 01"),
)  # fmt: skip
DATAGRAM_FACTS = (
    ("", DATAGRAMS[0], {"method": "GET", "path": "/.well-known/core"}),
    ("", DATAGRAMS[1], {"method": "PUT", "path": "/light"}),
    ("", DATAGRAMS[2], {"method": "GET", "path": "/temperature"}),
    ("", b"\x40\x05\0\0", {"method": "FETCH", "path": "/"}),
)
