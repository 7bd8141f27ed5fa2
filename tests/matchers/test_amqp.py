# All headers there are, as the specifications have them: 0-9-1, 1.0 with SASL, plain and with TLS, 0-8, 0-9 and 0-10.
# The first is also what amqp-publish of rabbitmq-c 0.11.0 sends.
SAMPLES = (
    b"AMQP\x00\x00\x09\x01", b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00", b"AMQP\x02\x01\x00\x00",
    b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x00\x09", b"AMQP\x01\x01\x00\x0a",
)  # fmt: skip
DECIDED_AT = 8
MATCHED = tuple((sample + b"\0\xff", 8) for sample in SAMPLES)
REFUSED = (
    (b"AMQP\x04\x01\x00\x00", 5), (b"AMQP\x00\x02\x00\x00", 6), (b"AMQP\x00\x00\x00\x00", 7),
    (b"AMQP\x03\x00\x09\x01", 6), (b"AMQP\x00\x00\x09\x02", 8), (b"AMQP\x01\x01\x00\x08", 8),
    (b"amqp", 1), (b"AUTH secret\r\n", 2), (b"ACL LIST\r\n", 2),
)  # fmt: skip
