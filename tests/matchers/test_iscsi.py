from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts


def login(text: bytes, stages: int = 0x87, **changed: bytes) -> bytes:
    """Make a login request: its header has the fields in this order."""
    fields = {
        "operation": b"\x43", "stages": bytes([stages]), "versions": bytes(2), "additional": bytes(1),
        "size": len(text).to_bytes(3, "big"), "session": bytes.fromhex("80 3ae9b9 0000 0000 40e335e1"),
        "connection": bytes(2), "reserved": bytes(2), "numbers": bytes(4 + 4), "end": bytes(16),
    }  # fmt: skip
    return b"".join((fields | changed).values()) + text + bytes(-len(text) % 4)


INITIATOR = b"InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq\0"
NORMAL = login(
    INITIATOR
    + b"TargetName=iqn.2026-11.example:disk\0SessionType=Normal\0HeaderDigest=None,CRC32C\0DataDigest=None\0"
)

# Recorded from libiscsi 1.19: `iscsi-ls`, the same with a password, and the beginning of `iscsi-inq`. Then as other initiators do it:
# text that continues, another connection of a session, and no negotiation of security.
SAMPLES = (
    bytes.fromhex(
        "43870000000001 8b803ae9b90000000040e335e1000000001e85adad00000001000000000000000000000000"
        "00000000"
    )
    + b"InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls\0SessionType=Discovery\0HeaderDigest=None\0",
    bytes.fromhex(
        "438100000000005280de322f00000000526099d10000000036cb486f00000001000000000000000000000000"
        "00000000"
    )
    + b"InitiatorName=iqn.2026-11.example:host\0SessionType=Discovery\0AuthMethod=CHAP,None\0\0\0",
    NORMAL,
    login(b"InitiatorName=a" + b"b" * 8000, 0x40),
    login(INITIATOR, 0x81, session=bytes.fromhex("00023d000001 0007 00000000"), connection=b"\0\1"),
    login(b"SessionType=Normal\0" + INITIATOR, 0x04),
)
DECIDED_AT = 48
REFUSED = (
    (b"\x03", 1), (b"\x42", 1), (b"CAP LS", 2), (b"CONNECT", 2), (b"C\x8f", 2), (b"C\xc0", 2),
    (b"C\x87\1", 3), (b"C\x87\0\1", 4), (b"C\x87\0\0\1", 5), (b"C\x87\0\0\0\1", 6),
    (b"C\x87\0\0\0\0\x21", 7), (b"C\x87\0\0\0\0\0\x0f", 8),
    (login(INITIATOR, reserved=b"\1\0"), 23), (login(INITIATOR, end=b"\0" * 15 + b"\1"), 48),
)  # fmt: skip
TRIED = ("initiator=iqn.*", "target=~iqn.*disk")
VERDICTS = (
    ("target=iqn.2026-11.example:disk", NORMAL, MATCH, 48 + NORMAL[7] + 256 * NORMAL[6]),
    ("target=IQN.2026-11.Example:* initiator=*:iscsi-???", NORMAL, MATCH),
    ("target=*:tape", NORMAL, NO),
    ("target=*:disk", NORMAL[:-9], NEED_MORE),
    # A session of discovery names no target.
    ("target=*", SAMPLES[1], NO),
    ("initiator=iqn.2026-11.example:host", SAMPLES[1], MATCH),
    ("initiator=*", b"GET /", NO, 1),
)
UNUSABLE = (("target=a,,b", "target: "),)
OF_LIBISCSI = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq"
FACTS: Facts = (
    ("", NORMAL, {"initiator": OF_LIBISCSI, "target": "iqn.2026-11.example:disk"}),
    ("", SAMPLES[1], {"initiator": "iqn.2026-11.example:host"}), ("", NORMAL[:48], {}),
    ("", b"\x43", {}), ("", login(b"InitiatorName=a\nb\0"), {"initiator": r"a\nb"}),
)  # fmt: skip
