import base64
import zlib
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import all_samples
from tests.matchers.asking import datagram_verdicts_of, over_udp, verdicts_of
from txmux.interfaces import Datagrams, Peeked, Verdict
from txmux.matchers.random import ENOUGH, random

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

_STREAMS = 20_000
_MOST_REFUSED = 20

# What the first flights of Shadowsocks (AEAD), BIP 324 and Message Stream Encryption look like: random bytes.
SAMPLES = tuple(Random(seed).randbytes(size) for seed, size in ((1, 57), (2, 64), (3, 96)))

said = verdicts_of(random)
# Shadowsocks over UDP (AEAD-2017): a salt of 32 bytes and what is encrypted, from a generator of random numbers.
DATAGRAMS = tuple(Random(seed).randbytes(size) for seed, size in ((4, 84), (5, 1200), (6, 48)))
TEXT = "".join(map(str, range(900))).encode()
NOISE = SAMPLES[2]
# 48 bytes decide.
DECIDED_AT = 48
MATCHED = (
    bytes(range(0x80, 0xC0)),
    # Compressed data is not told from it.
    zlib.compress(TEXT)[2:],
    # Nor is what has an end of a line after four bytes of text, as random bytes may have.
    b"abcd\n" + SAMPLES[0],
)
REFUSED = (
    # Text is refused within 12 bytes, whatever it spells.
    *(
        (TEXT, 12)
        for TEXT in (
            b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", base64.b64encode(NOISE),
            NOISE.hex().encode(), b'{"jsonrpc": "2.0", "method": "login"}',
        )
    ),
    # The end of a line of text is a no: Finger, Gopher, POP3, LPD, and what people type.
    *(
        (line, len(line))
        for line in (b"alice\r\n", b"\r\n", b"1\t\r\n", b"USER bob\r\n", b"\2lp\n", b"hello\n")
    ),
    # A greeting of SOCKS 5 is whole: its client waits, though it offers what is not assigned.
    (b"\x05\x01\x04", 3),
    (b"\x05\x03\x00\x02\x04", 5),
    # Small numbers in wide fields, and runs of one byte, are refused, too, and so is text in UTF-8.
    (b"\0\0\0\x08\x04\xd2\x16\x2f", 3), (SAMPLES[0][:30] + b"\xa7" * 9, 34), bytes(range(0x40)),
    b"".join(n.to_bytes(4, "little") for n in range(20)),
    *(
        TEXT.encode()
        for TEXT in (
            "東京都で行われた会議で、新しい計画が発表された。",
            "Привет, как дела сегодня, друзья?",
        )
    ),
)  # fmt: skip


class RandomTests(SynchronousTestCase):
    def test_only_random_bytes_match(self) -> None:
        """Of 20,000 random streams, at most 20 are refused; the reference says about 5 in 10,000."""
        predicate = random.predicate({})
        source = Random(20_261_120)
        verdicts = [predicate(Peeked(source.randbytes(ENOUGH))) for _ in range(_STREAMS)]
        self.assertLessEqual(verdicts.count(NO), _MOST_REFUSED)
        self.assertEqual(verdicts.count(NEED_MORE), 0)
        # No sample of another protocol matches, however many random bytes follow it.
        predicate = random.predicate({})
        more = Random(4).randbytes(ENOUGH)
        samples = all_samples()
        del samples["random"]
        for protocol, streams in samples.items():
            for stream in streams:
                self.assertIsNot(predicate(Peeked(stream)), MATCH, (protocol, stream))
                if len(stream) >= 16:
                    self.assertIs(predicate(Peeked(stream + more)), NO, (protocol, stream))

    def test_known_handshakes(self) -> None:
        """Handshakes that carry random numbers early are refused by their first bytes."""
        tail = SAMPLES[1]
        for head, at in (
            (b"\x16\x03\x01", 3), (b"\x80\x2e\x01\x03\x01", 5), (b"\0\1\0\x58\x21\x12\xa4\x42", 8),
            (b"\0\x36\x38", 3), (b"\1\x54\x50", 3), (b"\x2e\x06longadmin\0", 12),
        ):  # fmt: skip
            verdict, length = said(head + tail)
            self.assertIs(verdict, NO, head)
            self.assertLessEqual(length, at)

    def test_random_datagrams_match_and_those_of_openvpn_do_not(self) -> None:
        verdict_of = datagram_verdicts_of(random)
        for datagram in all_samples("DATAGRAMS")["openvpn"]:
            self.assertIs(verdict_of(datagram), Verdict.NO)
        numbers = Random(7)
        verdict_of = over_udp(random)
        taken = sum(
            verdict_of(Datagrams((numbers.randbytes(120),))) is Verdict.MATCH for _ in range(4000)
        )
        self.assertGreaterEqual(taken, 3996)


# A datagram of 48 bytes or more is judged as a stream is; a shorter one is a no.
REFUSED_DATAGRAMS = (
    DATAGRAMS[0][:47],
    bytes(8) + DATAGRAMS[0],  # as mosh has its first number in front
    b"a" * 100,
    b"x",
)
