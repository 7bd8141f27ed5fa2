from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from txmux.interfaces import Peeked
from txmux.matchers.mqtt import mqtt
from txmux.testing import calls_in, decided, in_pieces


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def number(value: int) -> bytes:
    head = b""
    while value > 127:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def connect(
    client_id: bytes = b"sensor-1",
    *,
    name: bytes = b"MQTT",
    version: int = 4,
    flags: int = 2,
    properties: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    body = sized(name) + bytes([version, flags, 0, 60])
    body += number(len(properties)) + properties if version == 5 else b""
    body += sized(client_id) + rest
    return b"\x10" + number(len(body)) + body


# The first is recorded from curl 7.88.1; the others are as the specifications have them, the last one of a bridge.
CURL = b"\x10\x18\x00\x04MQTT\x04\x02\x00<\x00\x0ccurl95ae8f3b"
SAMPLES = (
    CURL, connect(version=5, properties=b"\x11\x00\x00\x00\x0a\x21\x00\x14"),
    connect(name=b"MQIsdp", version=3),
    connect(flags=0xC2, rest=sized(b"user") + sized(b"p" * 200)), connect(version=0x84),
    # Recorded from mosquitto_pub 2.0.11 with -V mqttv31, mqttv311 and mqttv5.
    b"\x10\x16\x00\x06MQIsdp\x03\x02\x00<\x00\x08sensor-1",
    b"\x10\x14\x00\x04MQTT\x04\x02\x00<\x00\x08sensor-1",
    b"\x10\x18\x00\x04MQTT\x05\x02\x00<\x03!\x00\x14\x00\x08sensor-1",
)  # fmt: skip

# The version is a match, whatever follows.
DECIDED_AT = (9, 9, 11, 10, 9, 11, 9, 9)
MATCHED = ((b"\x10\xff\xff\xff\x7f\x00\x06MQIsdp\x83\xff", 14),)
REFUSED = (
    (b"\x11\x18\x00\x04MQTT\x04", 1), (b"\x10\x0b\x00\x04MQTT\x04", 2), (b"\x10\x80\x00\x00\x04MQTT\x04", 3),
    (b"\x10\xff\xff\xff\xff\x01", 5), (b"\x10\x18\x01\x04MQTT\x04", 3), (b"\x10\x18\x00\x05MQTT\x04", 4),
    (b"\x10\x18\x00\x04mqtt\x04", 5), (b"\x10\x18\x00\x04MQTT\x03", 9), (b"\x10\x18\x00\x04MQTT\x06", 9),
    (b"\x10\x18\x00\x06MQIsdp\x04", 11),
)  # fmt: skip
UNICODE = connect("zähler".encode())
SHORT = connect(version=5, properties=b"\0" * 9)
VERDICTS = (
    # The last byte of the client identifier is a match, whatever follows.
    ("client_id=curl*", CURL, MATCH, len(CURL)),
    *(
        ("client_id=a,sensor-?", sample + b"\xff", MATCH, sample.index(b"sensor-1") + 8)
        for sample in SAMPLES[1:]
    ),
    # Another is a no there; case counts.
    *((f"client_id={text}", CURL, NO, len(CURL)) for text in ("Curl*", "curl", "sensor-1")),
    # A client may leave its name to the server.
    ("client_id=*", connect(b""), MATCH),
    ("client_id=?*", connect(b""), NO),
    # It is in UTF-8.
    ("client_id=z?hler", UNICODE, MATCH),
    ("client_id=~z.*", UNICODE, MATCH),
    # What no packet can have there is a no.
    *(
        ("client_id=*", data, NO, at)
        for data, at in (
            (connect(flags=3), 10), (connect(b"a\xff"), 16), (connect(b"a\0"), 16),
            (CURL[:12] + b"\x00\x0d", 14), (CURL[:12] + b"\x01", 13), (SHORT[:12] + b"\x7f", 13),
            (SHORT[:12] + b"\xff\xff\xff\xff", 16), (SHORT[:12] + b"\x80\x00", 14),
        )
    ),
    ("client_id=*", connect(name=b"MQIsdp", version=3, flags=3), MATCH),
)  # fmt: skip
TRIED = ("client_id=*", "client_id=sensor*,curl????????")
UNUSABLE = (("client_id=a,,b", "client_id: "),)
FACTS: Facts = (
    ("", CURL, {"client_id": "curl95ae8f3b"}),
    ("client_id=a", CURL, {"client_id": "curl95ae8f3b"}),
    *(("", data, {}) for data in (CURL[:-1], connect(b""), connect(flags=3), b"\x10\x00")),
    ("", b"GET /", {}),
    # It cannot break the log line.
    ("", connect("a\nä".encode()), {"client_id": r"a\n\xe4"}),
)


class LongTests(SynchronousTestCase):
    def test_the_client_identifier_ends_within_64_kib(self) -> None:
        size = 65536 - len(connect(b"", version=5, properties=b"a" * 30000)) - 2
        fits = connect(b"a" * size, version=5, properties=b"a" * 30000)
        predicate = mqtt.predicate({"client_id": "*"})
        self.assertEqual(decided(predicate, fits[:65536]).at, len(fits))
        over = connect(b"a" * (size + 9), version=5, properties=b"a" * 30000)
        self.assertIs(predicate(Peeked(over[:65535])), NEED_MORE)
        self.assertIs(predicate(Peeked(over)), NO)

    def test_cost(self) -> None:
        """Sent byte by byte, a long packet costs the same for each byte as a short one."""
        predicate = mqtt.predicate({"client_id": "*"})

        def cost(size: int) -> float:
            data = connect(b"a" * size, version=5, properties=b"a" * size)
            return calls_in(lambda: in_pieces(predicate, data, range(1, len(data)))) / len(data)

        self.assertLess(cost(4000), 1.2 * cost(400))
