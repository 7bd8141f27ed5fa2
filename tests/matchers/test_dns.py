"""The `dns` matcher."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of, datagram_verdicts_of, over_udp, verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Peeked, Verdict
from txmux.matchers.dns import dns
from txmux.testing import check_predicate, facts

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

IN = b"\0\1\0\1"
NAME = b"\3www\7example\3com\0"
OPT = bytes.fromhex("00 0029 04d0 00000000 000c 000a0008 9b3c1f0e77a2d451")


def message(rest: bytes, flags: str = "0100", counts: str = "0001 0000 0000 0000") -> bytes:
    """Make a message with its length before it."""
    body = bytes.fromhex(f"1234 {flags} {counts}") + rest
    return len(body).to_bytes(2, "big") + body


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

said = verdicts_of(dns)
# Recorded from dig 9.18 over UDP: with a cookie, without EDNS, and with DNSSEC for the root.
DATAGRAMS = (
    bytes.fromhex(
        "353b0120000100000000000103777777076578616d706c6503636f6d000001000100002904d00000"
        "0000000c000a000859bb7ecab8e10bf0"
    ),
    bytes.fromhex("e81d01200001000000000000076578616d706c65036f726700000f0001"),
    bytes.fromhex(
        "395501200001000000000001000002000100002904d000008000000c000a0008f752f28b1db5de4e"
    ),
)
COUNTS = "0001 0000 0000 0001"
MATCHED = (
    # The end of the question decides, also when more messages follow.
    (QUERY, len(QUERY)),
    (QUERY + QUERY, len(QUERY)),
    (SAMPLES[1], len(QUERY)),
)
REFUSED = (
    # Responses, other opcodes and flags, and counts that do not fit are a no at
    # the byte that shows it.
    *(
        (message(NAME + IN, flags, COUNTS), at)
        for flags, COUNTS, at in (
            ("8100", "0001 0000 0000 0000", 5),
            ("1000", "0001 0000 0000 0000", 5),
            ("0200", "0001 0000 0000 0000", 5),
            ("3000", "0001 0000 0000 0000", 5),
            ("0180", "0001 0000 0000 0000", 6),
            ("0140", "0001 0000 0000 0000", 6),
            ("0103", "0001 0000 0000 0000", 6),
            ("0100", "0000 0000 0000 0000", 8),
            ("0100", "0002 0000 0000 0000", 8),
            ("0100", "0001 0001 0000 0000", 10),
            ("0100", "0001 0000 0100 0000", 11),
            ("0100", "0001 0000 0000 0002", 14),
        )
    ),
    # The length is that of the question, and of the other records if there are
    # any.
    (b"\0\x10" + QUERY[2:], 2),
    (message(NAME + IN + b"x"), 2 + 12 + len(NAME)),
    # Two bytes behind the question are those of Windows, and only where it asks for a zone.
    (message(NAME + IN + b"MS"), 2 + 12 + len(NAME) + 2),
    (message(b"\3www\3com\0\0\xfc\0\1MT"), 2 + 12 + 9 + 4 + 2),
    (message(NAME + IN)[:1] + b"\x20" + QUERY[2:], 27),
    (message(NAME + IN + OPT[:10], counts=COUNTS), 2 + 12 + len(NAME)),
    # Compressed names, control characters, and types and classes that are none are
    # a no.
    *(
        (message(question), at)
        for question, at in (
            (b"\xc0\x0c" + IN + b"\0" * 9, 15),
            (b"\3w\nw\3com\0" + IN, 17),
            (b"\3www\3com\0" + b"\0\0\0\1", 25),
            (b"\3www\3com\0" + b"\0\1\1\1", 26),
            (b"\3www\3com\0" + b"\0\1\0\2", 27),
        )
    ),
    # Other protocols that begin with a length, or with text, are a no within a few
    # bytes.
    *(
        b"\0\x0e\x38" + bytes(range(1, 9)) + bytes(5),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(range(12)),
        b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\0\0\0\0",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
    ),
)


class MessageTests(SynchronousTestCase):
    """Without options."""

    def test_longest(self) -> None:
        """A name has at most 255 bytes, and a label 63."""
        labels = (b"\x3f" + b"a" * 63) * 3
        name = labels + b"\x3d" + b"b" * 61 + b"\0"
        self.assertEqual(len(name), 255)
        self.assertEqual(said(message(name + IN)), (MATCH, 2 + 12 + 255 + 4))
        longer = labels + b"\x3e" + b"b" * 62 + b"\0"
        self.assertEqual(said(message(longer + IN)), (NO, 2 + 12 + len(labels) + 1))
        self.assertEqual(said(message(b"\x40" + b"a" * 64 + b"\0" + IN)), (NO, 15))

    def test_within(self) -> None:
        """A message has at most 1 KiB, or what ``within=`` says; the first byte that makes it longer is a no."""
        padded = message(NAME + IN + OPT + bytes(1000), "2800", "0001 0000 0000 0001")
        self.assertEqual(said(padded), (NO, 2))
        self.assertEqual(said(padded, within="2KiB"), (MATCH, 2 + 12 + len(NAME) + 4))
        self.assertEqual(said(padded, within=str(len(padded) - 2)).verdict, MATCH)
        self.assertEqual(said(padded, within=str(len(padded) - 3)), (NO, 2))
        for hello in (b"HI\n", b"\x05\1\0", b"ruok", b"get a"):
            self.assertEqual(said(hello), (NO, 1), hello)
        self.assertEqual(said(b"HI\n", within="65535"), (NEED_MORE, 3))

    def test_within_unusable(self) -> None:
        """A size that no message can have is an error that says what would be right."""
        for text in ("16", "64KiB", "1MiB", "", "-1"):
            error = self.assertRaises(OptionError, dns.predicate, {"within": text})
            self.assertIn("write one from 17 to 65535, such as 1KiB", str(error))


class NameTests(SynchronousTestCase):
    """``name=`` looks at the first question."""

    def test_match(self) -> None:
        """Case does not count."""
        for pattern in ("www.example.com", "WWW.*", "*.example.com", ".com", "~www[.].*"):
            for sample in SAMPLES[:3]:
                self.assertIs(said(sample, name=pattern).verdict, MATCH, pattern)

    def test_no(self) -> None:
        """A label that no pattern can have there is a no, as is the end of a name that none fits."""
        self.assertEqual(said(QUERY, name="ftp.example.com"), (NO, 18))
        self.assertEqual(said(QUERY, name="*.example.net"), (NO, len(QUERY)))
        self.assertEqual(said(QUERY, name="example.com"), (NO, 18))

    def test_root(self) -> None:
        """The root has an empty name."""
        root = SAMPLES[-2]
        self.assertIs(said(root, name="*").verdict, MATCH)
        self.assertIs(said(root, name="*.com").verdict, NO)
        self.assertEqual(facts(dns.predicate({}), Peeked(root)), {"name": ".", "type": "NS"})

    def test_dots_in_labels(self) -> None:
        """A dot inside of a label parts no labels."""
        odd = message(b"\x0bwww.example\3com\0" + IN)
        self.assertIs(said(odd, name="*.example.com").verdict, NO)
        self.assertIs(said(odd, name="*.com").verdict, MATCH)
        backslash = message(b"\x03a\\b\0" + IN)
        self.assertEqual(
            facts(dns.predicate({}), Peeked(backslash)), {"name": "a\\\\092b", "type": "A"}
        )

    def test_key(self) -> None:
        """Names and ``*.`` patterns can be looked up."""
        predicate = dns.predicate({"name": "*.example.com"})
        key = getattr(predicate, "key", None)
        assert key is not None
        self.assertEqual(key.read(Peeked(SAMPLES[2])), "www.example.com")
        self.assertIs(key.read(Peeked(QUERY[:20])), None)
        self.assertEqual(key.read(Peeked(b"GET / HTTP/1.1")), "")
        self.assertIs(getattr(dns.predicate({}), "key", 0), None)

    def test_learnt(self) -> None:
        """The name is learnt, in lower case."""
        predicate = dns.predicate({})
        self.assertEqual(
            facts(predicate, Peeked(SAMPLES[2])), {"name": "www.example.com", "type": "AAAA"}
        )
        self.assertEqual(facts(predicate, Peeked(QUERY[:20])), {})

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, dns.predicate, {"name": "a..b"})
        self.assertIn("name: ", str(error))


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in ({"name": "www.*"}, {"name": "*.example.com"}, {"name": "~.*[.]com"}):
            check_predicate(dns.predicate(options), more=SAMPLES, examples=30)


class TypeTests(SynchronousTestCase):
    """``type=`` looks at the first question, too."""

    def test_type(self) -> None:
        """Types are named without case, others by their number."""
        for pattern in ("A,AAAA", "a", "~A+", "*"):
            self.assertEqual(said(QUERY, type=pattern), (MATCH, len(QUERY)), pattern)
        self.assertEqual(said(QUERY, type="MX,TYPE65280"), (NO, len(QUERY)))
        odd = message(NAME + b"\xff\0\0\1")
        self.assertIs(said(odd, type="TYPE65280").verdict, MATCH)
        self.assertIs(said(QUERY, name="www.*", type="MX").verdict, NO)
        self.assertIs(said(QUERY, name="ftp.*", type="A").verdict, NO)

    def test_unusable(self) -> None:
        """A name that no type has is an error."""
        error = self.assertRaises(OptionError, dns.predicate, {"type": "A,AAA"})
        self.assertIn("did you mean", str(error))


PLAIN = DATAGRAMS[1]
UPDATE = bytes.fromhex("0001 2800 0001 0000 0001 0000") + b"\3abc\0\0\6\0\1"
RECORD = b"\1x\xc0\x0c" + bytes.fromhex("0001 0001 00000e10 0004 7f000001")
# All records are passed over, and nothing is left.
MATCHED_DATAGRAMS = (*(sample[2:] for sample in SAMPLES[:-1]), UPDATE + RECORD)
REFUSED_DATAGRAMS = (
    PLAIN[:-1],
    PLAIN + b"\0",
    PLAIN[:2] + b"\x81\x80" + PLAIN[4:],
    PLAIN[:4] + b"\0\0" + PLAIN[6:],
    PLAIN[:10] + b"\0\1" + PLAIN[12:],
    DATAGRAMS[0] + b"\0",
    DATAGRAMS[0][:-13] + b"\xff" + DATAGRAMS[0][-12:],
    UPDATE + b"\x40" + RECORD,
    UPDATE + RECORD[:-1],
    UPDATE[:8] + b"\1\1" + UPDATE[10:] + RECORD * 257,
    PLAIN[:12] + b"\xc0\x0c" + PLAIN[-4:],
    b"\0\1",
)


class DatagramTests(SynchronousTestCase):
    """Messages over UDP, which fill their datagram."""

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

    def test_options(self) -> None:
        """The options are those over TCP."""
        verdict_of = datagram_verdicts_of(dns)
        self.assertIs(verdict_of(DATAGRAMS[0], name="*.example.com", type="A"), MATCH)
        self.assertIs(verdict_of(DATAGRAMS[0], name="WWW.example.com."), MATCH)
        self.assertIs(verdict_of(DATAGRAMS[0], name="*.example.com", type="MX"), NO)
        self.assertIs(verdict_of(DATAGRAMS[1], name="*.example.com"), NO)
        self.assertIs(verdict_of(DATAGRAMS[0], within="17"), MATCH)

    def test_key(self) -> None:
        """Names can be looked up."""
        key = getattr(over_udp(dns, name="*.example.com"), "key", None)
        assert key is not None
        self.assertEqual(key.read(Datagrams((DATAGRAMS[0],))), "www.example.com")
        self.assertEqual(key.read(Datagrams((b"x",))), "")
        self.assertIs(getattr(over_udp(dns, type="A"), "key", 0), None)

    def test_learnt(self) -> None:
        """Name and type are learnt."""
        learn = datagram_facts_of(dns)
        self.assertEqual(
            [tuple(learn(one).values()) for one in DATAGRAMS],
            [("www.example.com", "A"), ("example.org", "MX"), (".", "NS")],
        )
        self.assertEqual(learn(b"x"), {})
