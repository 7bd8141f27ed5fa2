"""What is to happen on each connection: both ends find it out from the seed and the trial's number, and need not be told."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence

import attrs

from campaign.bytes.streams import HEADER_SIZE, MOST_AT_ONCE

MOST = 2**26
"""Bytes of the longest streams."""

_PIECES = (2, 2, 3, 4, 6, 10, 20, 200)
"""Into at least half as many pieces a stream is cut, if these are not longer by chance."""
PASSED = {"through": "X", "named": "N"}
"""The ways in of TLS that goes through to the server, and the ways out to these."""
_ONLY = {"first": "F", "hush": "F", **PASSED}
"""Where all go who take such a way in."""
PATIENCE = 120.0
"""Seconds that one connection may take."""

_SIZES = ((0.90, 2**12), (0.985, 2**17), (0.9993, 2**21), (1.0, MOST))
"""How many connections have at most so many bytes, each way."""
_EDGES = (0, 1, 2**14, 2**14 + 1, 2**15, 2**16 - 1, 2**16, 2**16 + 1, 2**18)
"""Sizes of buffers and records, and beside them."""


class Ending(enum.Enum):
    """How one end leaves.

    Attributes:
        FINISH: It half-closes after its last byte, reads to the end, and closes.
        CLOSE: It sends all, reads to the end, and closes.
        RESET: It breaks off in the midst of what it sends, or before that.
        HEAR: It sends all, does not say that this is all, and breaks off after so many bytes that it has heard.
        REGRET: It half-closes, and breaks off after so many bytes that it has heard.
        RUDE: It closes as soon as it has sent all, whatever the other end has to say.
        TRUNCATE: It sends all by TLS, and ends the TCP connection's direction without a close-notify.
    """

    FINISH = "finish"
    CLOSE = "close"
    RESET = "reset"
    HEAR = "hear"
    REGRET = "regret"
    RUDE = "rude"
    TRUNCATE = "truncate"


ORDERLY = (Ending.FINISH, Ending.CLOSE)
UNFINISHED = (Ending.RESET, Ending.HEAR, Ending.TRUNCATE)
"""Who ends so never says that its bytes are all there are."""


@attrs.frozen
class Part:
    """What one end does.

    Attributes:
        size: All bytes that it has to send.
        piece: The most that it sends in one go.
        stall: How likely a pause is after a piece.
        pause: How long it is at most, in seconds.
        gulp: The most that it reads in one go.
        rest: How likely a pause is after it has read.
        waits: It sends nothing before the other end has finished.
        sleep: Seconds for which it reads nothing after the first bytes; meanwhile the other end finishes, with bytes left.
        ending: How it leaves.
        at: For `RESET`, after how many sent bytes; for `HEAR` and `REGRET`, after how many that it has heard.
    """

    size: int
    piece: int
    stall: float
    pause: float
    gulp: int
    rest: float
    waits: bool
    ending: Ending
    at: int
    sleep: float = 0.0


@attrs.frozen
class Plan:
    """What happens on one connection.

    Attributes:
        trial: Its number.
        entry: By which of the ways in.
        way: By which of the ways out; the letter in the header.
        client: What the client does.
        server: What the server does.
        cut: Into pieces of this size the client cuts what it says first.
    """

    trial: int
    entry: str
    way: str
    client: Part
    server: Part
    cut: int

    @property
    def is_orderly(self) -> bool:
        """Whether all that is sent has to arrive."""
        return self.client.ending in ORDERLY and self.server.ending in ORDERLY

    def part(self, direction: int) -> Part:
        return self.server if direction else self.client


@attrs.frozen
class Mix:
    """What the connections of a round are made of.

    Attributes:
        entries: Ways in, a frequent one several times.
        ways: Ways out, likewise.
        breaks: How many of all connections somebody breaks off.
        most: Bytes of the longest streams.
        lasting: How many parts last for seconds, since they pause again and again.
        strict: Whether a client of TLS that sends no close-notify counts as broken off.
        patience: Seconds that one connection may take.
    """

    entries: Sequence[str]
    ways: Sequence[str]
    breaks: float = 0.2
    most: int = MOST
    lasting: float = 0.0
    strict: bool = False
    patience: float = PATIENCE


def chance(seed: int, trial: int) -> random.Random:
    """Give the source of chance of one trial; its seed is a number, since that of a text takes several times as long."""
    return random.Random(seed << 40 | trial)


def plan(seed: int, trial: int, mix: Mix) -> Plan:
    by = chance(seed, trial)
    entry = mix.entries[int(by.random() * len(mix.entries))]
    way = mix.ways[int(by.random() * len(mix.ways))]
    way = _led(entry, way)
    up, down = _size(by, mix.most), _size(by, mix.most)
    first, second = _endings(by) if by.random() < mix.breaks else _orderly(by)
    waiting = by.random()
    sizes = up + HEADER_SIZE, down
    client = _part(by, sizes, first, mix.lasting, waits=False)
    waits = _can_wait(second, client) and waiting < 0.3
    server = _part(by, sizes[::-1], second, mix.lasting, waits=waits)
    if client.ending is Ending.RESET and by.random() < 0.3:
        client = attrs.evolve(client, at=by.randint(0, HEADER_SIZE))
    if mix.strict and entry.startswith("tls") and client.ending is Ending.HEAR:
        client = attrs.evolve(client, ending=Ending.TRUNCATE)
    if way in "TUXN" and server.ending is Ending.HEAR:
        server = attrs.evolve(server, ending=Ending.TRUNCATE)
    # a UNIX socket has no reset
    if way == "S" and server.ending not in ORDERLY:
        server = attrs.evolve(server, ending=Ending.FINISH)
    if entry.startswith("unix") and client.ending not in ORDERLY:
        client = attrs.evolve(client, ending=Ending.FINISH)
    # one that half-closes while it waits is taken to have left
    if way == "O" and client.ending in {Ending.FINISH, Ending.REGRET}:
        client = attrs.evolve(client, ending=Ending.CLOSE)
        ending = Ending.FINISH if server.ending is Ending.CLOSE else server.ending
        server = attrs.evolve(server, waits=False, ending=ending)
    if way == "R":
        server = attrs.evolve(server, size=0, waits=False, ending=Ending.RESET, at=0)
    its = Plan(trial, entry, way, client, server, by.choice((1, 3, 10, 2**16, 2**16)))
    # Where few may be at a server at a time, nobody keeps the others waiting.
    return _sleeping(by, its, mix) if by.random() < mix.lasting and way != "Q" else its


def _sleeping(by: random.Random, its: Plan, mix: Mix) -> Plan:
    """Have one end sleep while the other sends so much that its last bytes stay inside for a while, and finishes."""
    if not its.is_orderly:
        return its
    size = min(mix.most, by.randint(2**14, 2**22))
    sleep = by.uniform(1, 8)  # longer than from one upgrade to the next, often
    ends = [attrs.evolve(its.client, waits=False), attrs.evolve(its.server, waits=False)]
    who = by.choice((0, 1, 1))
    ends[who] = attrs.evolve(ends[who], size=size, piece=MOST_AT_ONCE, stall=0.0)
    ends[1 - who] = attrs.evolve(ends[1 - who], sleep=sleep, rest=0.0, gulp=2**16)
    return attrs.evolve(its, client=ends[0], server=ends[1])


def _led(entry: str, way: str) -> str:
    if way == "H" and entry not in {"plain", "v1", "v2"}:
        way = "K"  # there is no socket of the client's own to give
    return _ONLY.get(entry, way)


def _size(by: random.Random, most: int) -> int:
    kind = by.random()
    if kind < 0.03:
        return min(most, by.choice(_EDGES))
    kind = by.random()
    limit = min(most, next(size for share, size in _SIZES if kind < share))
    return int(limit ** by.random()) - int(by.random() < 0.1)


def _orderly(by: random.Random) -> tuple[Ending, Ending]:
    kind = by.random()
    if kind < 0.4:
        return Ending.FINISH, Ending.FINISH
    return (Ending.FINISH, Ending.CLOSE) if kind < 0.7 else (Ending.CLOSE, Ending.FINISH)


def _endings(by: random.Random) -> tuple[Ending, Ending]:
    bad = by.choice((Ending.RESET, Ending.RESET, Ending.HEAR, Ending.REGRET, Ending.RUDE))
    kind = by.random()
    if kind < 0.45:
        return bad, Ending.FINISH
    if kind < 0.9:
        return Ending.FINISH, bad
    return bad, by.choice((Ending.RESET, Ending.REGRET, Ending.RUDE))


def _can_wait(ending: Ending, client: Part) -> bool:
    """Tell whether a server may wait for the client's end, which the client must then not expect of it first."""
    return client.ending in {Ending.FINISH, Ending.REGRET, Ending.RESET} and ending in {
        *ORDERLY,
        Ending.RESET,
    }


def _part(
    by: random.Random, sizes: tuple[int, int], ending: Ending, lasting: float, *, waits: bool
) -> Part:
    own, others = sizes
    at = by.randint(0, own if ending is Ending.RESET else others)
    # few pieces mostly, since time is better spent on more connections
    piece = min(MOST_AT_ONCE, max(own // by.choice(_PIECES), 1 << by.randrange(0, 18)))
    gulp = max(others // 200, 1 << by.randrange(4, 19))
    stall, rest = (by.random() * 0.2 if by.random() < 0.15 else 0.0 for _ in range(2))
    pause = 0.02
    if by.random() < lasting:
        stall, rest, pause = 0.7, 0.3, 0.6
    return Part(own, piece, stall, pause, gulp, rest, waits, ending, at)
