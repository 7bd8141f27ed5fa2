"""The `minecraft` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import facts_of, verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.minecraft import minecraft
from txmux.testing import check_predicate

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


def varint(number: int) -> bytes:
    """Write a number of seven bits a byte, the least significant first."""
    head = b""
    while number > 0x7F:
        head += bytes([number & 0x7F | 0x80])
        number >>= 7
    return head + bytes([number])


def handshake(host: bytes, state: int = 2, version: int = 767, port: int = 25565) -> bytes:
    """Make a handshake packet."""
    body = b"\0" + varint(version) + varint(len(host)) + host + port.to_bytes(2, "big")
    return varint(len(body) + 1) + body + bytes([state])


def ping(host: str) -> bytes:
    """Make the ping of release 1.6."""
    name, channel = host.encode("utf-16-be"), "MC|PingHost".encode("utf-16-be")
    rest = b"\x4e" + len(host).to_bytes(2, "big") + name + (25565).to_bytes(4, "big")
    return b"\xfe\x01\xfa\0\x0b" + channel + len(rest).to_bytes(2, "big") + rest


LOGIN = handshake(b"mc.example.com")
PING = ping("mc.example.com")
# Packets as Java Edition 1.21, 1.20.4 with its first query, 1.8 with Forge, 1.16 with Forge, a server list with the
# version -1, and 1.6 write them.
SAMPLES = (
    LOGIN + b"\x07\0\x05alice",
    handshake(b"mc.example.com.", 1, 765) + b"\x01\0",
    handshake(b"forge.example.com\0FML\0", 2, 47),
    handshake(b"forge.example.com\0FML2\0", 2, 754),
    handshake(b"192.0.2.7", 1, 0xFFFFFFFF),
    handshake(b"a" * 120 + b".example.com", 3),
    PING,
    # Recorded from mcstatus 14.2.0: JavaServer and LegacyServer.
    b"\x0f\x00/\t127.0.0.1\xb8\x9b\x01\x01\x00",
    b"\xfe\x01\xfa",
)

said = verdicts_of(minecraft)
learnt = facts_of(minecraft)
MATCHED = (
    # Its first three bytes are enough; those of older releases are too few.
    (PING, 3),
    (b"\xfe\x01\xfa garbage", 3),
)
REFUSED = (
    # Lengths that disagree and values out of their range are a no at the byte that
    # shows it.
    (b"\x06\0\0\1x\0\0\1", 1),
    (b"\x87\0\0\0\1x\0\0\1", 2),
    (b"\x89\x06\0", 2),
    (b"\x80\x80\x01", 2),
    (b"\x15\x01", 2),
    (b"\x15\0\x80\x80\x80\x80\x10", 7),
    (b"\x15\0\x80\0", 4),
    (b"\x15\0\x2f\0", 4),
    (b"\x15\0\x2f\x0d", 4),
    (b"\x15\0\x2f\xfe\x05", 5),
    (handshake(b"a b"), 7),
    (handshake(b"\0FML\0"), 6),
    (handshake(b"h\xc3\xb6st"), 7),
    (handshake(b"host", 0), 12),
    (handshake(b"host", 4), 12),
    # Other protocols whose second byte can be NUL are a no.
    *(
        b"\x10\0\0\0\1\0\0\0\0\0\0\0\xdd\x07\0\0",
        b"\x12\1\0\x2f\0\0\1\0",
        b"\x16\3\1\2\0\1",
        b"\x6c\0\x0b\0\0\0\0\0\0\0\0\0",
        b"\xff\xfb\x1f",
        b"GET / HTTP/1.1\r\n",
    ),
)


class HandshakeTests(SynchronousTestCase):
    """Without options."""

    def test_match(self) -> None:
        """The next state, which ends the packet, decides."""
        for sample in SAMPLES:
            self.assertIs(said(sample).verdict, MATCH, sample)
        self.assertEqual(said(SAMPLES[0]), (MATCH, len(LOGIN)))
        self.assertEqual(said(LOGIN[:-1]), (NEED_MORE, len(LOGIN) - 1))
        self.assertEqual(said(handshake(b"x" * 765, 1)).verdict, MATCH)
        self.assertEqual(said(b"\x07\0\0\1x\0\0\1"), (MATCH, 8))


class PingTests(SynchronousTestCase):
    """The ping of release 1.6."""

    def test_handshake(self) -> None:
        """A handshake may begin with two of these bytes."""
        data = handshake(b"x" * 246)
        self.assertTrue(data.startswith(b"\xfe\x01\0"))
        self.assertEqual(said(data), (MATCH, len(data)))

    def test_host(self) -> None:
        """With ``host=`` it is read on to the end of the host."""
        end = len(PING) - 4
        self.assertEqual(said(PING, host="mc.example.com"), (MATCH, end))
        self.assertEqual(said(PING, host="*.example.net"), (NO, end))
        self.assertEqual(said(PING, host="play.example.com"), (NO, end - 26))
        self.assertIs(said(ping(""), host="*").verdict, MATCH)

    def test_malformed(self) -> None:
        """What is no ping is a no then."""
        for at, byte in ((4, 0x0C), (6, 0x6D), (28, 6), (31, 0x0F)):
            data = PING[:at] + bytes([byte]) + PING[at + 1 :]
            self.assertEqual(said(data, host="*"), (NO, at + 1))
            self.assertEqual(said(data), (MATCH, 3))


class HostTests(SynchronousTestCase):
    """``host=`` looks at the server address."""

    def test_match(self) -> None:
        """Case, a final dot and what mods append do not count."""
        self.assertEqual(said(LOGIN, host="MC.example.com"), (MATCH, len(LOGIN)))
        self.assertIs(said(SAMPLES[1], host="mc.example.com").verdict, MATCH)
        self.assertIs(said(SAMPLES[2], host="forge.example.com").verdict, MATCH)
        self.assertIs(said(SAMPLES[3], host=".example.com").verdict, MATCH)

    def test_no(self) -> None:
        """The first byte that no pattern has there is a no, or the end of the address."""
        self.assertEqual(said(LOGIN, host="play.example.com"), (NO, 6))
        self.assertEqual(said(LOGIN, host="*.example.net"), (NO, len(LOGIN) - 3))

    def test_key(self) -> None:
        """Names and ``*.`` patterns can be looked up."""
        key = getattr(minecraft.predicate({"host": "*.example.com"}), "key", None)
        assert key is not None
        self.assertEqual(key.read(Peeked(SAMPLES[2])), "forge.example.com")
        self.assertIs(key.read(Peeked(LOGIN[:10])), None)
        self.assertEqual(key.read(Peeked(b"GET /")), "")

    def test_learnt(self) -> None:
        """The address is learnt, as it counts."""
        self.assertEqual(learnt(SAMPLES[2]), {"host": "forge.example.com"})
        self.assertEqual(learnt(PING), {"host": "mc.example.com"})
        self.assertEqual(learnt(LOGIN[:9]), {})
        self.assertEqual(learnt(ping("")), {})

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, minecraft.predicate, {"host": "a..b"})
        self.assertIn("host: ", str(error))


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in ({"host": "mc.*"}, {"host": "*.example.com"}, {"host": "~mc[.].*"}):
            check_predicate(minecraft.predicate(options), more=SAMPLES, examples=30)
