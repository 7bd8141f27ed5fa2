def connect_request(
    *,
    zxid: int = 0,
    timeout: int = 10_000,
    session: int = 0,
    password: bytes = bytes(16),
    read_only: bytes = b"\x00",
) -> bytes:
    body = b"".join(
        number.to_bytes(size, "big")
        for number, size in ((0, 4), (zxid, 8), (timeout, 4), (session, 8), (len(password), 4))
    )
    body += password + read_only
    return len(body).to_bytes(4, "big") + body


# Written after the specifications: clients that know of read-only servers and that do not, one that comes back, and
# words as ``echo ruok | nc`` and programs send them.
SAMPLES = (
    connect_request(),
    connect_request(timeout=30_000, read_only=b""),
    connect_request(
        zxid=0x2_0000_0C41,
        session=0x1000_0A1B_2C3D_0001,
        password=bytes(range(16)),
        read_only=b"\x01",
    ),
    b"ruok", b"ruok\n", b"srvr\n", b"mntr\n", b"stat\n", b"conf\r\n", b"dump\n",
)  # fmt: skip
GOOD = SAMPLES[0]
MATCHED = (
    # The length of the password is a match.
    *((sample, 32) for sample in (*SAMPLES[:3], connect_request(timeout=1))),
    # The fourth letter is a match.
    *((word + b"\n", 4) for word in (b"ruok", b"mntr", b"srvr", b"envi", b"wchs", b"cons")),
    # Words that begin a command of memcached or Redis need the end of the line.
    *((word + b"\n", 5) for word in (b"stat", b"conf", b"dump")),
    *((word + b"\r\n", 6) for word in (b"stat", b"conf", b"dump")),
)
REFUSED = (
    (b"\x00\x00\x00\x2b", 4), (b"\x00\x00\x00\x2e", 4), (GOOD[:4] + b"\x00\x00\x00\x01", 8),
    (connect_request(zxid=1 << 63), 9), (connect_request(timeout=0), 20),
    (connect_request(timeout=1 << 31), 17),
    (connect_request(password=bytes(15), read_only=b"\x00\x00"), 32),
    (b"\x00\x00\x00\x2c\x00\x03\x00\x00user\x00", 6),  # PostgreSQL
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 4),
    (b"\x00\x00\x00\x2c\x00\x12\x00\x03", 6),  # Kafka
    (b"\x00\x00\x00\x2c\x00\x00\x00\x07", 8),
    (b"\x00\x00\x00\x2d\xfeSMB", 5),
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42", 2),  # STUN,
    *((word + b"\ra", 6) for word in (b"stat", b"conf", b"dump")),
    # Other words, and commands of memcached and Redis, are a no.
    (b"stats\r\n", 5), (b"config get x\r\n", 5), (b"dump key\r\n", 5), (b"RUOK", 1), (b"ping\n", 1),
    (b"crs\n", 4), (b"set a 0 0 1\r\n", 2),
)  # fmt: skip
