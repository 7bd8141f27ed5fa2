def request(
    key: int, version: int, client: bytes | None, *, body: bytes = b"", id_: int = 0
) -> bytes:
    size = b"\xff\xff" if client is None else len(client).to_bytes(2, "big") + client
    numbers = key.to_bytes(2, "big") + version.to_bytes(2, "big") + id_.to_bytes(4, "big")
    rest = numbers + size + body
    return len(rest).to_bytes(4, "big") + rest


# Written after the protocol guide, with the client ids and numbers that these libraries have by default.
SAMPLES = (
    request(18, 3, b"rdkafka", body=b"\x00\x0blibrdkafka\x062.6.1\x00", id_=1),  # librdkafka
    request(18, 4, b"producer-1", body=b"\x00\x12apache-kafka-java\x064.0.0\x00"),  # Java
    # SASL
    request(18, 3, b"admin", body=b"\x00\x12apache-kafka-java\x064.0.0\x00", id_=0x7FFFFFF8),
    request(18, 0, b"sarama"),
    request(17, 1, b"kafka-python-2.0.2", body=b"\x00\x05PLAIN", id_=2),
    request(3, 1, b"kafka-python-2.0.2", body=b"\x00\x00\x00\x00", id_=1),
    request(3, 0, None, body=b"\x00\x00\x00\x00"),
    request(1, 11, b"", body=bytes(40), id_=7),
    request(0, 7, b"sarama", body=b"\xff\xff\x00\x01" + bytes(30), id_=1),
    request(0, 3, None, body=b"\x00\x02t1\xff\xff" + bytes(30), id_=1),
    request(0, 9, b"producer-1", body=b"\x00\x00\xff\xff" + bytes(30), id_=5),
    request(0, 11, b"", body=b"\x00\x03t1\x00\x00" + bytes(30), id_=5),
    # Recorded from kcat 1.7.1 with librdkafka 2.0.2.
    b"\x00\x00\x00$\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka\x00\x0blibrdkafka\x062.0.2\x00",
)
GOOD = SAMPLES[0]
# The first byte of the client id decides, or its length if it is empty or null; of Produce the acknowledgements.
DECIDED_AT = tuple(
    len(data) - 30 if data[5] == 0 else 14 if data[12:14] in {b"\xff\xff", b"\0\0"} else 15
    for data in SAMPLES
)
REFUSED = (
    (b"\x01\x00\x00\x00", 1), (b"\x00\x00\x00\x09", 4), (GOOD[:4] + b"\x01", 5),
    (GOOD[:4] + b"\x00\x20", 6), (GOOD[:4] + b"\x00\x04", 6), (GOOD[:6] + b"\x01", 7),
    (GOOD[:6] + b"\x00\x20", 8), (GOOD[:8] + b"\x80", 9), (GOOD[:12] + b"\x40", 13),
    (GOOD[:12] + b"\xff\xfe", 14), (GOOD[:12] + b"\x00\x7f", 14), (GOOD[:14] + b"\x00", 15),
    # So are an empty transactional id in Produce, and acknowledgements that there are not.
    (request(0, 3, b"", body=b"\x00\x00"), 16),
    (request(0, 3, b"a", body=b"\x04\x01"), 17),
    (request(0, 3, b"", body=b"\x00\x01\x00"), 17),
    (request(0, 3, b"", body=b"\xff\xff\x00\x02"), 18),
    (request(0, 3, b"", body=b"\xff\xff\xff\xfe"), 18),
    (request(0, 9, b"", body=b"\x01\x00\xff\xff"), 15),
    (request(0, 9, b"", body=b"\x00\x01\xff\xff"), 16),
    (bytes.fromhex("00080000 00000008 0000000000000000"), 16),  # rpcap: AUTH_REQ
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 4),  # PostgreSQL: SSLRequest
    (b"\x00\x00\x00\x10\x04\xd2\x16\x2e", 5),  # PostgreSQL: CancelRequest
    (b"\x00\x00\x00\x38\x00\x03\x00\x00user\x00alice\x00", 9),  # PostgreSQL
    (b"\x00\x00\x00\x38\x00\x03\x00\x02database\x00", 9),
    (b"\x00\x00\x00\x2d" + bytes(14), 8),  # ZooKeeper
    (b"\x00\x00\x00\xd0\xfeSMB", 5),
    (b"\x00\x01\x00\x08\x21\x12\xa4\x42", 5),  # STUN
    (b"\x00\x1d\xab\xcd\x01\x00\x00\x01", 5),  # DNS
    (b"\x00\x1d\xab\xcd\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www", 8),
    (b"\x00\x1d\xab\xcd\x00\x20\x00\x01\x00\x00\x00\x00\x00\x01\x03www", 6),
    (b"\x00\x4a\x00\x00\x01\x00\x00\x00\x01\x3f", 5),  # TNS
    (b"\x00\x15n\x00\x05\x00\x03\x49\x9c", 5),  # Erlang
    (bytes(20), 4),  # adb
    (b"\x05\x01\x00", 1),  # SOCKS 5,
)  # fmt: skip
