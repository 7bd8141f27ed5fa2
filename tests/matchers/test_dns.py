import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from tests.matchers.asking import datagram_facts_of, datagram_verdicts_of, from_hex, over_udp
from txmux.interfaces import Peeked
from txmux.matchers.dns import dns
from txmux.testing import facts

IN = b"\0\1\0\1"
NAME = b"\3www\7example\3com\0"
OPT = bytes.fromhex("00 0029 04d0 00000000 000c 000a0008 9b3c1f0e77a2d451")


def message(rest: bytes, flags: str = "0100", counts: str = "0001 0000 0000 0000") -> bytes:
    body = bytes.fromhex(f"1234 {flags} {counts}") + rest
    return len(body).to_bytes(2, "big") + body


def query(number: int, size: int, flags: int = 0) -> bytes:
    """Make a datagram of that length, with a name that fills it, as a resolver sends it."""
    name, left = b"\3www", size - 12 - 4 - 1 - len(IN)
    while left:
        label = min(left, 60)
        name, left = name + bytes([label - 1]) + b"x" * (label - 1), left - label
    return struct.pack(">6H", number, flags, 1, 0, 0, 0) + name + b"\0" + IN


# The first is recorded from twisted.names 26.10; then as dig and a resolver with 0x20 write them, a NOTIFY of BIND with
# the SOA, an IXFR with the SOA that the client has, an UPDATE of nsupdate, and a question about the root.
SOA = bytes.fromhex(
    "c00c 0006 0001 00000e10 0016 c00c c00c 00000001 00000002 00000003 00000004 00000005"
)[:-2]
QUERY = message(NAME + IN)
SAMPLES = (
    QUERY,
    message(NAME + IN + OPT, "0120", "0001 0000 0000 0001"),
    message(b"\3wWw\7eXAmple\3CoM\0\0\x1c\0\1" + OPT, "0010", "0001 0000 0000 0001"),
    message(b"\7example\3com\0\0\6\0\1" + SOA, "2400", "0001 0001 0000 0000"),
    message(b"\7example\3com\0\0\xfb\0\1" + SOA, "0000", "0001 0000 0001 0000"),
    message(
        b"\7example\3com\0\0\6\0\1" + b"\3new\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1",
        "2800",
        "0001 0000 0001 0000",
    ),
    # Recorded from dig +tcp 9.18.49 and nsupdate -v of it.
    bytes.fromhex("0038 0a6b 0120 0001000000000001")
    + NAME
    + IN
    + bytes.fromhex("0000 2904 d000 0000 0000 0c00 0a00 08fd 87ea a6bd da32 f4"),
    bytes.fromhex("0031 0a23 2800 0001000000010000")
    + b"\7example\3com\0\0\6\0\1\3new\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1",
    message(b"\0\0\2\0\1"),
    # As Windows' DNS asks for a zone.
    message(b"\7example\3com\0\0\xfc\0\1MS", "0000"),
)

# Recorded from dig 9.18 over UDP: with a cookie, without EDNS, and with DNSSEC for the root. Then queries as of dig
# +norecurse whose number and length are those of messages of WireGuard, of a reset of OpenVPN with --tls-crypt, and, with
# their flag AD, of ChannelData of TURN.
DATAGRAMS = (
    *from_hex(
        "353b0120000100000000000103777777076578616d706c6503636f6d000001000100002904d00000"
        "0000000c000a000859bb7ecab8e10bf0",
        "e81d01200001000000000000076578616d706c65036f726700000f0001",
        "395501200001000000000001000002000100002904d000008000000c000a0008f752f28b1db5de4e",
    ),
    *(query(number, size) for number, size in ((0x0100, 148), (0x0200, 92), (0x0300, 64))),
    query(0x0400, 64), query(0x38C5, 54), query(0x4A5A, 36, 0x0020),
)  # fmt: skip
COUNTS = "0001 0000 0000 0001"
BINARY = b"\4w\1\nw\7exa\x7fple\3com\0"
MATCHED = (
    # The end of the question decides, also when more messages follow.
    (QUERY, len(QUERY)), (QUERY + QUERY, len(QUERY)), (SAMPLES[1], len(QUERY)),
    # A label may hold any byte (RFC 2181, section 11).
    (message(BINARY + IN), len(QUERY) + 1),
)  # fmt: skip
REFUSED = (
    # Responses, other opcodes and flags, and counts that do not fit are a no at
    # the byte that shows it.
    *(
        (message(NAME + IN, flags, COUNTS), at)
        for flags, COUNTS, at in (
            ("8100", "0001 0000 0000 0000", 5), ("1000", "0001 0000 0000 0000", 5),
            ("0200", "0001 0000 0000 0000", 5), ("3000", "0001 0000 0000 0000", 5),
            ("0180", "0001 0000 0000 0000", 6), ("0140", "0001 0000 0000 0000", 6),
            ("0103", "0001 0000 0000 0000", 6), ("0100", "0000 0000 0000 0000", 8),
            ("0100", "0002 0000 0000 0000", 8), ("0100", "0001 0001 0000 0000", 10),
            ("0100", "0001 0000 0100 0000", 11), ("0100", "0001 0000 0000 0002", 14),
        )
    ),
    # The length is that of the question, and of the other records if there are any.
    (b"\0\x10" + QUERY[2:], 2),
    (message(NAME + IN + b"x"), 2 + 12 + len(NAME)),
    # Two bytes behind the question are those of Windows, and only where it asks for a zone.
    (message(NAME + IN + b"MS"), 2 + 12 + len(NAME) + 2),
    (message(b"\3www\3com\0\0\xfc\0\1MT"), 2 + 12 + 9 + 4 + 2),
    (message(NAME + IN)[:1] + b"\x20" + QUERY[2:], 27),
    (message(NAME + IN + OPT[:10], counts=COUNTS), 2 + 12 + len(NAME)),
    # Compressed names, and types and classes that are none are a no.
    *(
        (message(question), at)
        for question, at in (
            (b"\xc0\x0c" + IN + b"\0" * 9, 15), (b"\3www\3com\0" + b"\0\0\0\1", 25),
            (b"\3www\3com\0" + b"\0\1\1\1", 26), (b"\3www\3com\0" + b"\0\1\0\2", 27),
        )
    ),
    # Other protocols that begin with a length, or with text, are a no within a few bytes.
    *(
        b"\0\x0e\x38" + bytes(range(1, 9)) + bytes(5), b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(range(12)),
        b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\0\0\0\0", b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n", b"SSH-2.0-x\r\n",
    ),
)  # fmt: skip


PLAIN = DATAGRAMS[1]
UPDATE = bytes.fromhex("0001 2800 0001 0000 0001 0000") + b"\3abc\0\0\6\0\1"
RECORD = b"\1x\xc0\x0c" + bytes.fromhex("0001 0001 00000e10 0004 7f000001")
# All records are passed over, and nothing is left.
# From nDPI's tests/cfgs/default/pcap/dns-invalid-chars.pcap.
BINARY_QUERY = bytes.fromhex(
    "9f6c010000010000000000000377777717616c6c796f7572626104050661726562656c6f6e67746f02636e0000010001"
)
MATCHED_DATAGRAMS = (*(sample[2:] for sample in SAMPLES[:-1]), UPDATE + RECORD, BINARY_QUERY)
REFUSED_DATAGRAMS = (
    PLAIN[:-1], PLAIN + b"\0", PLAIN[:2] + b"\x81\x80" + PLAIN[4:], PLAIN[:4] + b"\0\0" + PLAIN[6:],
    PLAIN[:10] + b"\0\1" + PLAIN[12:], DATAGRAMS[0] + b"\0", DATAGRAMS[0][:-13] + b"\xff" + DATAGRAMS[0][-12:],
    UPDATE + b"\x40" + RECORD, UPDATE + RECORD[:-1], UPDATE[:8] + b"\1\1" + UPDATE[10:] + RECORD * 257,
    PLAIN[:12] + b"\xc0\x0c" + PLAIN[-4:], b"\0\1",
)  # fmt: skip


def named(name: bytes) -> bytes:
    return message(name + IN)


# A name has at most 255 bytes, and a label 63.
LABELS = (b"\x3f" + b"a" * 63) * 3
LONGEST = LABELS + b"\x3d" + b"b" * 61 + b"\0"
PADDED = message(NAME + IN + OPT + bytes(1000), "2800", "0001 0000 0000 0001")
ROOT = SAMPLES[-2]
DOTTED = named(b"\x0bwww.example\3com\0")
VERDICTS = (
    ("", named(LONGEST), MATCH, 2 + 12 + 255 + 4),
    ("", named(LABELS + b"\x3e" + b"b" * 62 + b"\0"), NO, 2 + 12 + len(LABELS) + 1),
    ("", named(b"\x40" + b"a" * 64 + b"\0"), NO, 15),
    # A message has at most 1 KiB, or what ``within=`` says; the first byte that makes it longer is a no.
    ("", PADDED, NO, 2), ("within=2KiB", PADDED, MATCH, 2 + 12 + len(NAME) + 4),
    (f"within={len(PADDED) - 2}", PADDED, MATCH), (f"within={len(PADDED) - 3}", PADDED, NO, 2),
    *(("", hello, NO, 1) for hello in (b"HI\n", b"\x05\1\0", b"ruok", b"get a")),
    ("within=65535", b"HI\n", NEED_MORE, 3),
    # Case does not count in the name of the first question.
    *(
        (f"name={pattern}", sample, MATCH)
        for pattern in ("www.example.com", "WWW.*", "*.example.com", ".com", "~www[.].*")
        for sample in SAMPLES[:3]
    ),
    # A label that no pattern can have there is a no, as is the end of a name that none fits.
    ("name=ftp.example.com", QUERY, NO, 18), ("name=*.example.net", QUERY, NO, len(QUERY)),
    ("name=example.com", QUERY, NO, 18),
    # The root has an empty name.
    ("name=*", ROOT, MATCH),
    ("name=*.com", ROOT, NO),
    # A dot inside a label parts no labels.
    ("name=*.example.com", DOTTED, NO),
    ("name=*.com", DOTTED, MATCH),
    # Types are named without case, others by their number.
    *((f"type={one}", QUERY, MATCH, len(QUERY)) for one in ("A,AAAA", "a", "~A+", "*")),
    ("type=MX,TYPE65280", QUERY, NO, len(QUERY)),
    ("type=TYPE65280", message(NAME + b"\xff\0\0\1"), MATCH),
    ("name=www.* type=MX", QUERY, NO),
    ("name=ftp.* type=A", QUERY, NO),
)  # fmt: skip
DATAGRAM_VERDICTS = (
    ("name=*.example.com type=A", DATAGRAMS[0], MATCH), ("name=WWW.example.com.", DATAGRAMS[0], MATCH),
    ("name=*.example.com type=MX", DATAGRAMS[0], NO), ("name=*.example.com", DATAGRAMS[1], NO),
    ("within=17", DATAGRAMS[0], MATCH),
)  # fmt: skip
KEYS = (
    ("name=*.example.com", SAMPLES[2], "www.example.com"), ("name=*.example.com", QUERY[:20], None),
    ("name=*.example.com", b"GET / HTTP/1.1", ""),
)  # fmt: skip
DATAGRAM_KEYS = (
    ("name=*.example.com", DATAGRAMS[0], "www.example.com"), ("name=*.example.com", b"x", ""),
)  # fmt: skip
FACTS: Facts = (
    ("", SAMPLES[2], {"name": "www.example.com", "type": "AAAA"}),
    ("", QUERY[:20], {}),
    ("", ROOT, {"name": ".", "type": "NS"}),
    ("", named(b"\x03a\\b\0"), {"name": "a\\\\092b", "type": "A"}),
    ("", named(BINARY), {"name": "w\\\\001\\\\010w.exa\\\\127ple.com", "type": "A"}),
)
DATAGRAM_FACTS: Facts = (
    ("", DATAGRAMS[0], {"name": "www.example.com", "type": "A"}),
    ("", DATAGRAMS[1], {"name": "example.org", "type": "MX"}),
    ("", DATAGRAMS[2], {"name": ".", "type": "NS"}),
    ("", BINARY_QUERY, {"name": "www.allyourba\\\\004\\\\005\\\\006arebelongto.cn", "type": "A"}),
    ("", b"x", {}),
)
TRIED = ("name=www.*", "name=*.example.com", "name=~.*[.]com")
SIZES = "write one from 17 to 65535, such as 1KiB"  # no message can have another one
UNUSABLE = (
    *((f"within={text}", SIZES) for text in ("16", "64KiB", "1MiB", "", "-1")),
    ("name=a..b", "name: "), ("type=A,AAA", "did you mean"),
)  # fmt: skip


class DatagramTests(SynchronousTestCase):
    @given(
        st.sampled_from(DATAGRAMS),
        st.lists(st.tuples(st.integers(2, 60), st.integers(0, 255)), max_size=3),
        st.binary(max_size=3),
    )
    def test_same_as_over_tcp(
        self, datagram: bytes, changes: list[tuple[int, int]], end: bytes
    ) -> None:
        """A message is read as it is over TCP, with the same facts; only what is behind the question is not looked at there."""
        changed = bytearray(datagram)
        for at, byte in changes:
            changed[at % len(changed)] = byte
        message = bytes(changed) + end
        over_tcp = len(message).to_bytes(2, "big") + message
        found = datagram_verdicts_of(dns)(message)
        over_tcp_too = dns.predicate({})
        expected = over_tcp_too(Peeked(over_tcp))
        if found is MATCH or message[6:12] == bytes(6):
            self.assertIs(found, expected)
        if found is MATCH:
            self.assertEqual(datagram_facts_of(dns)(message), facts(over_tcp_too, Peeked(over_tcp)))

    def test_without_names_routes_are_not_looked_up(self) -> None:
        self.assertIs(getattr(dns.predicate({}), "key", 0), None)
        self.assertIs(getattr(over_udp(dns, type="A"), "key", 0), None)
