"""Matches streams and datagrams whose first 48 bytes look like random ones, as those of fully encrypted tunnels do.

Such protocols (Shadowsocks, VMess, obfs4, BitTorrent's Message Stream Encryption, the version 2 transport of Bitcoin)
have no format to know them by: the approach is that of "How the Great Firewall of China Detects and Blocks Fully
Encrypted Traffic" (USENIX Security 2023), which counts printable characters and set bits. Here five counts are taken
after every byte: text characters (printable ASCII, tab, CR, LF), NULs, set bits, clear bits, and bytes that have been
there before. One that random bytes exceed with a probability of at most 1 in 100,000 is a *no*, and so are four equal
bytes in a row, 16 text characters in a row, a first line of text at its end (Finger, Gopher, LPD, what people type), and
the beginnings of TLS, STUN, OpenVPN, Winbox and SOCKS 5, which have random numbers there, or send nothing else at first.

About 5 in 10,000 streams of random bytes are refused. Text, and messages with numbers and lengths, are refused within
their first bytes. Other data without redundancy is not told from random bytes: compressed files, and protocols
unknown here that begin with a key.

A datagram that is shorter than 48 bytes is a *no*, and so are those of STUN, QUIC and OpenVPN, whose random numbers come as
early as over TCP.
"""

import re
from collections.abc import Callable
from functools import cache

from txmux.classes import frozen
from txmux.interfaces import Peeked, Transport, Verdict
from txmux.wire.plain import PlainMatcher

ENOUGH = 48
"""The number of bytes that decide.

Fewer would let structured data through; more might never come: the shortest first flights of fully encrypted
protocols are those of Shadowsocks (57 bytes with AES-128-GCM) and of BIP 324 (64).
"""
_RARE = 1e-5
_LONGEST_RUN = 3
_LONGEST_TEXT = 15
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
# Handshakes that carry random numbers so early that counting cannot tell them from random streams. All others fail
# by their text, their NULs or their repetitions.
_KNOWN = re.compile(
    rb"""
      [\x14-\x17]\x03[\x00-\x04]                        # TLS (RFC 8446, section 5.1)
    | [\x80-\xff].\x01(?:\x00\x02|\x03[\x00-\x04])      # its hello in the form of SSL 2.0 (RFC 5246, appendix E.2)
    | [\x00-\x3f].{3}\x21\x12\xa4\x42                   # STUN (RFC 8489, section 5)
    | \x00[\x0e-\x7f][\x08\x38] | [\x01-\x05].\x50      # OpenVPN: length and opcode of the first packet
    | [\x20-\x80]\x06[!-~]+\x00                         # Winbox: length, handler, user name, public key
    | \x05(?:\x01|\x02.|\x03..)[\x00-\x09]              # SOCKS 5 (RFC 1928, section 3)
    | [\x01-\x05]?[\t -~]*\r\n | [\t -~]{5,}\n         # a line of text: one stream of random bytes in 14,000 has one
    | [\x01-\x05][!-~]+\n                              # a command of LPD (RFC 1179, section 5): one in 22,000
    """,
    re.VERBOSE | re.DOTALL,
)
_KNOWN_DATAGRAM = re.compile(
    rb"""
      [\x00-\x3f].{3}\x21\x12\xa4\x42                            # STUN
    | [\x80-\xff](?:\x00\x00\x00\x01|\x6b\x33\x43\xcf|\xff\x00\x00.)  # QUIC: its long header with version 1, 2 or a draft's
    | \x50.{10}\x00[\x00-\x08]                                   # OpenVPN with --tls-crypt-v2
    | [\x08\x38].{8}\x00{3}                                      # with --tls-crypt
    | [\x08\x38].{8}(?:.{16}){1,4}\x00{3}.{5}\x00{5}\Z            # with --tls-auth, in the sizes of all digests
    | [\x08\x38].{8}(?:.{20}|.{28}|.{36})\x00{3}.{5}\x00{5}\Z
    """,
    re.VERBOSE | re.DOTALL,
)


def _bounds(chance: Callable[[int, int], float], trials: int = 1) -> tuple[int, ...]:
    """Return how often something may happen in the first 0, 1, 2 … bytes before it is too often for random ones.

    Args:
        chance: How likely it happens next, by the number of bytes so far and of times it has happened.
        trials: How often it can happen in one byte.

    Returns:
        For each number of bytes the smallest count that random ones exceed with a probability of at most `_RARE`.
    """
    counts = [1.0]
    bounds = [0]
    for length in range(ENOUGH):
        for _ in range(trials):
            happens = [share * chance(length, count) for count, share in enumerate(counts)]
            counts = [
                share - more + fewer
                for share, more, fewer in zip(
                    [*counts, 0.0], [*happens, 0.0], [0.0, *happens], strict=True
                )
            ]
        bound, beyond = len(counts) - 1, 0.0
        while beyond + counts[bound] <= _RARE:
            beyond += counts[bound]
            bound -= 1
        bounds.append(bound)
    return tuple(bounds)


@cache
def _all_bounds() -> tuple[tuple[int, ...], ...]:
    """Return the bounds of text, NULs, set or clear bits, and repeated bytes; made when they are first asked for."""
    return (
        _bounds(lambda _length, _count: len(_TEXT) / 256),
        _bounds(lambda _length, _count: 1 / 256),
        _bounds(lambda _length, _count: 1 / 2, trials=8),
        _bounds(lambda length, repeated: (length - repeated) / 256),
    )


@frozen
class _RandomPredicate:
    longest: int = ENOUGH
    first_bytes: None = None

    def __call__(self, peeked: Peeked, /) -> Verdict:
        data = peeked.data[:ENOUGH]
        if _KNOWN.match(data) or not _uniform(data):
            return Verdict.NO
        return Verdict.MATCH if len(data) == ENOUGH else Verdict.NEED_MORE


@frozen
class _RandomDatagram:
    longest: int = 1
    first_bytes: None = None

    def __call__(self, peeked: Peeked, /) -> Verdict:
        data = peeked.data
        if len(data) < ENOUGH or _KNOWN_DATAGRAM.match(data) or not _uniform(data[:ENOUGH]):
            return Verdict.NO
        return Verdict.MATCH


def _uniform(data: bytes) -> bool:
    """Return whether no beginning of the data is too unlikely among random bytes."""
    most_text, most_nuls, most_bits, most_repeated = _all_bounds()
    text = text_run = nuls = ones = repeated = run = 0
    seen: set[int] = set()
    last = None
    for length, byte in enumerate(data, 1):
        text += byte in _TEXT
        text_run = text_run + 1 if byte in _TEXT else 0
        nuls += not byte
        ones += byte.bit_count()
        repeated += byte in seen
        seen.add(byte)
        run = run + 1 if byte == last else 1
        last = byte
        if (
            text > most_text[length]
            or nuls > most_nuls[length]
            or max(ones, 8 * length - ones) > most_bits[length]
            or repeated > most_repeated[length]
            or run > _LONGEST_RUN
            or text_run > _LONGEST_TEXT
        ):
            return False
    return True


random = PlainMatcher(
    "random",
    "what looks random from its first byte, such as Shadowsocks",
    _RandomPredicate(),
    transports=tuple(Transport),
    datagrams=_RandomDatagram(),
    source='"How the Great Firewall of China Detects and Blocks Fully Encrypted Traffic", USENIX Security 2023',
)
