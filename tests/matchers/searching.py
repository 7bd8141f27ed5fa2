"""Finds first bytes that two matchers both match, and clients that a matcher holds though they are another's.

    python -m tests.matchers.searching

writes `txmux/detection/overlaps.py`, by which ``txmux check`` warns. It takes a minute or two: a test of `script/test --all`
does an eighth of it and compares.

Matchers are only asked, so the search knows nothing of protocols. A sample of one and a sample of another are brought
together byte by byte: each byte takes the other's value, or one of those at which fields end, the first byte any, where
its matcher still takes the whole. So IDs, times and flags come to any value, and lengths, which a datagram of both has
to share, are changed before.
Besides, two matchers for streams are asked about the same bytes, one byte more each time, of those that both allow: any byte
at first, later bytes of samples and others that often matter. Then their samples finish what has begun so.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.matchers.all_samples import CONFIGURED, all_samples, for_streams
from tests.matchers.asking import over_udp
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Datagrams, Peeked, Predicate, Transport, Verdict

Pair = tuple[str, str]

TABLE = Path(__file__).parents[2] / "txmux/detection/overlaps.py"
_PAGE = Path(__file__).parents[2] / "docs/reference/matchers.md"
_SEEDS = 8
_KEPT = 48
_LONGEST = 80
_OFTEN = bytes((0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 32, 47, 48, 49, 58, 65, 97, 127, 128, 255))
_CHANGED = 16
_EXTREMES = (0, 1, 2, 3, 4, 5, 0x20, 0x7F, 0x80, 0xFF)
_LONGEST_CHANGED = 64
_LONGEST_DATAGRAM = 1500
_SIZES = range(4, 65, 4)
_MATCH, _NO, _NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


_MODULE = '''"""Pairs of matchers that both match some first bytes, with such bytes; the first in the reference's order comes first.

``python -m tests.matchers.searching`` has found them, and has written this file.
"""

# fmt: off
OVERLAPS: dict[tuple[str, str], str] = {
%s}
"""Of streams; in hexadecimal digits."""

DATAGRAM_OVERLAPS: dict[tuple[str, str], str] = {
%s}
"""Of datagrams, whole."""
# fmt: on
'''


@cache
def order(heading: str = "Ambiguities") -> tuple[str, ...]:
    section = _PAGE.read_text().partition(f"\n## {heading}\n")[2]
    return tuple(section.partition("```text\n")[2].partition("```")[0].split())


@cache
def streams() -> dict[str, Asked]:
    matchers, samples = for_streams(), all_samples()
    return {
        name: Asked(matchers[name].predicate({}), samples[name])
        for name in order()
        if name in samples and name != "random"
    }


@cache
def flows() -> dict[str, Asked]:
    matchers, samples = installed_matchers(), all_samples("DATAGRAMS")
    more = all_samples("MATCHED_DATAGRAMS")
    return {
        name: Asked(
            over_udp(matchers[name]),
            [data for data in (*samples[name], *more.get(name, ())) if isinstance(data, bytes)],
            Transport.UDP,
        )
        for name in order("Order over UDP")
        if name not in CONFIGURED and Transport.UDP in transports_of(matchers[name])
    }


class Asked:
    """A matcher without options, and what it has to match.

    Args:
        predicate: What it made of no options.
        samples: First bytes, or first datagrams, of its clients.
        transport: Which of the two.
    """

    def __init__(
        self, predicate: Predicate, samples: Sequence[bytes], transport: Transport = Transport.TCP
    ) -> None:
        self.samples = samples
        self.first = getattr(predicate, "first_bytes", None) or frozenset(range(256))
        self._predicate = predicate
        self._transport = transport
        self._about_short: dict[bytes, Verdict] = {}
        self._sized: dict[int, tuple[bytes, ...]] = {}

    def about(self, data: bytes) -> Verdict:
        if len(data) > 2:
            return self._predicate(Peeked(data))
        if data not in self._about_short:
            self._about_short[data] = self._predicate(Peeked(data))
        return self._about_short[data]

    def takes(self, data: bytes) -> bool:
        if data[0] not in self.first:
            return False
        peeked = Peeked(data) if self._transport is Transport.TCP else Datagrams((data,))
        return self._predicate(peeked) is _MATCH

    def of_size(self, size: int) -> tuple[bytes, ...]:
        if size not in self._sized:
            made = (_resized(self, sample, size) for sample in self.samples)
            self._sized[size] = tuple(dict.fromkeys(data for data in made if data is not None))
        return self._sized[size]

    def decides_at(self, data: bytes) -> int:
        low, high = 1, len(data)
        while low < high:
            middle = (low + high) // 2
            if self.about(data[:middle]) is _NEED_MORE:
                low = middle + 1
            else:
                high = middle
        return low


def overlap(one: Asked, other: Asked, kept: int = _KEPT, seed: int = 0) -> bytes | None:
    """Look for a stream that two matchers both match.

    Args:
        one: One of them.
        other: The other.
        kept: How many beginnings are followed at a time.
        seed: By which these are chosen.
    """
    firsts = one.first & other.first
    chance = random.Random(seed)
    begun = [(b"", _NEED_MORE, _NEED_MORE)] if firsts else []
    while begun and len(begun[0][0]) < _LONGEST:
        found = _finished(one, other, begun)
        if found is not None:
            return found
        longer = []
        for data, is_one, is_other in begun:
            for byte in sorted(_following(one, other, data) if data else firsts):
                more = data + bytes([byte])
                if (first := is_one if is_one is _MATCH else one.about(more)) is _NO:
                    continue
                if (second := is_other if is_other is _MATCH else other.about(more)) is _NO:
                    continue
                longer.append((more, first, second))
        chance.shuffle(longer)
        # Those that one of them has matched are the nearest.
        longer.sort(key=lambda state: _MATCH not in state)
        half = sum(_MATCH in state for state in longer[: kept // 2])
        begun = [*longer[:half], *[s for s in longer if _MATCH not in s][: kept - half]]
        begun = begun if len(longer) > kept else longer
    return None


def _finished(
    one: Asked, other: Asked, begun: Iterable[tuple[bytes, Verdict, Verdict]]
) -> bytes | None:
    """Find a beginning that the end of a sample, or nothing, makes a match of both; as much of it as that takes."""
    for data, is_one, is_other in begun:
        for sample in (*one.samples, *other.samples):
            whole = data + sample[len(data) :]
            if (is_one is _MATCH or one.about(whole) is _MATCH) and (
                is_other is _MATCH or other.about(whole) is _MATCH
            ):
                return whole[: max(one.decides_at(whole), other.decides_at(whole))]
    return None


def _following(one: Asked, other: Asked, data: bytes) -> Iterable[int]:
    """Give the bytes that are worth trying behind others."""
    at = len(data)
    if at < 2:
        return range(256)
    found = set(_OFTEN)
    for sample in (*one.samples, *other.samples):
        found.update(sample[at : at + 1])
        again = sample.find(data[-2:])
        if again >= 0:
            found.update(sample[again + 2 : again + 3])
    return found


def overlaps(
    kept: int = _KEPT, seeds: int = _SEEDS, known: Collection[Pair] = ()
) -> dict[Pair, bytes]:
    """Find the pairs of matchers for TCP that both match some stream, in the order of the reference, but for those that are known."""
    asked = streams()
    found: dict[Pair, bytes] = {}
    for seed in range(-1, seeds):
        for one, other in _pairs(asked):
            if (one, other) not in found and (one, other) not in known:
                pair = asked[one], asked[other]
                data = shared_stream(*pair) if seed < 0 else overlap(*pair, kept, seed)
                if data is not None:
                    found[one, other] = data
    return {pair: found[pair] for pair in _pairs(asked) if pair in found}


def datagram_overlaps() -> dict[Pair, bytes]:
    """Find the pairs of matchers for UDP that both match some datagram, in the order of the reference."""
    asked = flows()
    found = {pair: shared_datagram(asked[pair[0]], asked[pair[1]]) for pair in _pairs(asked)}
    return {pair: data for pair, data in found.items() if data is not None}


def shared_datagram(one: Asked, other: Asked) -> bytes | None:
    """Look for a datagram that two matchers both match, a short one first."""
    if not one.first & other.first:
        return None
    sizes = {len(data) for data in (*one.samples, *other.samples)}
    for size in sorted({*sizes, *_SIZES} & {*range(1, _LONGEST_DATAGRAM)}):
        for first in one.of_size(size):
            for second in other.of_size(size):
                found = _brought_together(one, other, first, second)
                if found is not None:
                    return found
    return None


def shared_stream(one: Asked, other: Asked) -> bytes | None:
    """Look for a stream that two matchers both match, among what their samples can be."""
    if not one.first & other.first:
        return None
    for first in (data[: one.decides_at(data)] for data in one.samples):
        for second in (data[: other.decides_at(data)] for data in other.samples):
            found = _brought_together(
                one, other, first + second[len(first) :], second + first[len(second) :]
            )
            if found is not None:
                return found
    return None


def _brought_together(one: Asked, other: Asked, first: bytes, second: bytes) -> bytes | None:
    """Change two messages of the same size, each of which its matcher takes, until they are the same."""
    mine, its = bytearray(first), bytearray(second)
    for at, (was, other_was) in enumerate(zip(first, second, strict=True)):
        for value in (other_was, was, *(_EXTREMES if at else range(256))):
            mine[at] = its[at] = value
            if (value == was or one.takes(bytes(mine))) and (
                value == other_was or other.takes(bytes(its))
            ):
                break
        else:
            return None
    return bytes(mine)


def _resized(asked: Asked, data: bytes, size: int) -> bytes | None:
    """Make a message longer or shorter, at its end or in fields that say how long they are."""
    whole = data[:size].ljust(size, b"\0")
    if len(data) == size or asked.takes(whole):
        return whole
    for at in range(_LONGEST_CHANGED):
        changed = (
            longer
            for more in _steps(size - len(data))
            for longer in _with_another_length(data, at, more)
        )
        data = next(filter(asked.takes, changed), data)
        if len(data) == size:
            return data
    return None


def _with_another_length(data: bytes, at: int, more: int) -> Iterator[bytes]:
    """Give a message with so many more bytes, or less, behind a byte that counts them, or at the end."""
    behind = data[at + 1 :]
    if max(0, -more) < len(behind) and 0 <= data[at] + more <= 0xFF:
        counted = data[:at] + bytes([data[at] + more])
        yield counted + (behind[:1] * more + behind if more > 0 else behind[-more:])
        yield counted + (behind + bytes(more) if more > 0 else behind[:more])


def _steps(difference: int) -> Iterator[int]:
    while difference:
        yield difference
        difference = int(difference / 2)


def _pairs(asked: Mapping[str, Asked]) -> Iterator[Pair]:
    names = list(asked)
    return ((one, other) for at, one in enumerate(names) for other in names[at + 1 :])


def neighbours(sample: bytes, most: int) -> Iterator[bytes]:
    yield sample
    for at, byte in enumerate(sample[: min(most, _CHANGED)]):
        before, behind = sample[:at], sample[at + 1 :]
        yield before + behind
        for other in {*_OFTEN, *(byte ^ 1 << bit for bit in range(8))}:
            yield before + bytes([other]) + behind
        for more in (0, 1, 32, 255):
            yield before + bytes([more, byte]) + behind


def table() -> str:
    rows = [
        "".join(
            f'    ("{one}", "{other}"): "{data.hex()}",\n' for (one, other), data in found.items()
        )
        for found in (overlaps(), datagram_overlaps())
    ]
    return _MODULE % tuple(rows)


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="ascii")
