# Recorded from python-snap7 3.3.0; the others are made by hand: the same with the parameters in the order of Snap7 in C, an
# operator's panel, Micro/WIN and another client with an S7-200, and the name of an S7-1500.
SAMPLES = (
    bytes.fromhex("03000016 11 e0 0000 0001 00 c1020100 c2020101 c0010a"),
    bytes.fromhex("03000016 11 e0 0000 0001 00 c0010a c1020100 c2020102"),
    bytes.fromhex("03000016 11 e0 0000 0002 00 c0010a c1020200 c2020201"),
    bytes.fromhex("03000016 11 e0 0000 0001 00 c1024d57 c2024d57 c00109"),
    bytes.fromhex("03000016 11 e0 0000 0001 00 c1021000 c2021700 c0010a"),
    bytes.fromhex("03000024 1f e0 0000 0001 00 c0010a c1020600 c210") + b"SIMATIC-ROOT-ES\0",
)
DECIDED_AT = (18, 21, 21, 19, 18, 28)
REFUSED = (
    (b"\3\1", 2), (bytes.fromhex("0300000e"), 4), (bytes.fromhex("03000016 10"), 5),
    (bytes.fromhex("03000016 11 f0"), 6), (bytes.fromhex("03000016 11 e0 0001"), 8),
    (bytes.fromhex("03000016 11 e0 0000 0001 10"), 11),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c3"), 12),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c10a"), 13),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c1020100 c201"), 17),
    # RDP, with a cookie and with a request to negotiate; MMS with its usual selector; H.323.
    (bytes.fromhex("03000027 22 e0 0000 0000 00 436f6f6b"), 12),
    (bytes.fromhex("03000013 0e e0 0000 0000 00 01000800"), 12),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c1020001 c2020001"), 18),
    (bytes.fromhex("03000031 02 70"), 5),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c1020100 c20218"), 18),
    (bytes.fromhex("03000016 11 e0 0000 0001 00 c1024d57 c2024d56"), 19),
    (bytes.fromhex("03000024 1f e0 0000 0001 00 c0010a c1020600 c210") + b"SIMATIK", 27),
)  # fmt: skip
