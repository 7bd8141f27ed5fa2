# Recorded from clickhouse-driver 0.2 for Python; then as clickhouse-client and clickhouse-go write it, made by hand.
SAMPLES = (
    b"\x00\x18ClickHouse python-driver\x14\x0a\xc4\xa9\x03\x00\x07default\x00",
    b"\x00\x11ClickHouse client\x18\x08\xca\xa9\x03\x00\x07default\x00",
    b"\x00\x14clickhouse-go/2.40.1\x02\xc8\x01\xca\xa9\x03\x02db\x01u\x00",
)
DECIDED_AT = (31, 24, 28)
REFUSED = (
    (b"\x01", 1), (b"\x00\x02", 2), (b"\x00\x80", 2),
    # DNS, SMB and a node of Erlang.
    (b"\x00\x1d\x12", 3), (b"\x00\x1dab\x01", 5), (b"\x00\x00", 2), (b"\x00\x15n\x00\x05", 4),
    (b"\x00\x03abc\x80\x80", 7), (b"\x00\x03abc\x80\x00", 7), (b"\x00\x03abc\x01\x01\x01", 8),
    (b"\x00\x03abc\x01\x01\xc4\x29", 9), (b"\x00\x03abc\x01\x01\xc4\xa9\x04", 10),
    (b"\x00\x03abc\x01\x01\x80\x80\x03", 10),
)  # fmt: skip
