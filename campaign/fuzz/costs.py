"""The dearest input of each matcher: a beginning, and a fragment that is repeated behind it.

Steps are counted while it is looked for: lines and calls of Python, which a busy machine does not change. What is found is then measured in
CPU time, since steps do not tell what happens inside C.
"""

from __future__ import annotations

import base64
import gc
import json
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import process_time

import attrs

from campaign.fuzz.asking import of_streams, samples_of
from campaign.fuzz.catastrophic import predicate, streams
from campaign.fuzz.changing import changed
from txmux.interfaces import Peeked, Predicate, Verdict
from txmux.testing import in_pieces, steps_in

SIZE = 32 * 1024
_KEPT = Path(__file__).with_name("corpus") / "dearest.json"
_SEARCHED = 2048
"""Bytes of the inputs that are compared while one is looked for."""
_PIECE = 16
_CUTS = 12
_SIZES = (512, 1024, 2048)
_TIMES = 3
_FILLERS = (
    *(bytes([byte]) for byte in b"\0\1aA1 .-/:\t\n\x7f\x80\xff"), b"\r\n", b"a:b\r\n", b"X: y\r\n",
    b"a=b&", b"a\0b\0", b"\0\0\0\4", b"%41", b"(a)", b"<a>", b"::", b"\x16\3\1\0\1\1",
    b"\0\0\5\2\0\0\0\0\1\0\0\0\0\0", b"\0\0\0\xfa\0\0\0\0\1", b"\x0a\x0a\0\0",
)  # fmt: skip


@attrs.frozen
class Dear:
    """An input that costs much."""

    start: bytes
    again: bytes

    def of(self, size: int) -> bytes:
        """Make so many bytes of it."""
        return (self.start + self.again * (size // len(self.again) + 1))[:size]


@attrs.frozen
class Cost:
    """What an input of `SIZE` bytes costs, in milliseconds of CPU."""

    at_once: float
    by_bytes: float
    decided: int  # after how many bytes the matcher said yes or no; `SIZE` if it did not


def kept() -> dict[str, Dear]:
    found = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    return {line: Dear(*map(base64.b64decode, pair)) for line, pair in found.items()}


def keep(found: Mapping[str, Dear]) -> None:
    told = {
        line: [base64.b64encode(part).decode() for part in (dear.start, dear.again)]
        for line, dear in sorted(found.items())
    }
    _KEPT.write_text(json.dumps(told, indent=0) + "\n")


def dearest(line: str, chance: random.Random, tries: int, known: Dear | None = None) -> Dear:
    """Look for the dearest input of a matcher."""
    predicate = of_streams()[line]
    starts = [b""] + [
        sample[:length]
        for of, sample in samples_of({line: predicate}, "SAMPLES")
        if of and isinstance(sample, bytes)
        for length in {*(len(sample) * part // _CUTS for part in range(_CUTS + 1)), len(sample) - 1}
        if length >= 0
    ]
    candidates = [Dear(start, again) for start in {*starts} for again in _FILLERS]
    candidates += [Dear(start, start[-8:]) for start in {*starts} if start]
    if known:
        candidates.append(known)
    chance.shuffle(candidates)
    first = candidates[: tries // 2] + ([known] if known else [])
    best = max(first, key=lambda dear: _steps(predicate, dear))
    highest = _steps(predicate, best)
    for _ in range(tries // 2):
        start = (
            changed(best.start, starts, _FILLERS, chance) if chance.random() < 0.6 else best.start
        )
        again = (
            changed(best.again, _FILLERS, _FILLERS, chance) if chance.random() < 0.6 else best.again
        )
        other = Dear(start[:400], again[:64] or b"a")
        steps = _steps(predicate, other)
        if steps > highest:
            best, highest = other, steps
    return best


def _steps(predicate: Predicate, dear: Dear) -> int:
    data = dear.of(_SEARCHED)
    asked = partial(in_pieces, predicate, data, range(1, len(data), _PIECE))
    # Who is undecided still may cost more.
    more = SIZE // _SEARCHED if asked().verdict is Verdict.NEED_MORE else 1
    return steps_in(asked) * more


def measured(line: str, dear: Dear) -> Cost:
    """Measure an input, each way a few times, of which the quickest counts."""
    predicate, data = of_streams()[line], dear.of(SIZE)
    found = in_pieces(predicate, data, range(1, SIZE))
    decided = SIZE if found.verdict is Verdict.NEED_MORE else found.at
    at_once = min(_timed(lambda: predicate(Peeked(data))) for _ in range(_TIMES))
    by_bytes = min(_by_bytes(predicate, data[:decided]) for _ in range(_TIMES))
    return Cost(at_once * 1000, by_bytes * 1000, decided)


def _timed(action: Callable[[], object]) -> float:
    gc.disable()
    before = process_time()
    action()
    passed = process_time() - before
    gc.enable()
    return passed


def _by_bytes(predicate: Predicate, data: bytes) -> float:
    """Send bytes one by one. What it takes to put them together is not the matcher's."""
    passed, peeked = 0.0, None
    gc.disable()
    for start in range(0, len(data), 64):
        parts = [data[:length] for length in range(start + 1, min(start + 64, len(data)) + 1)]
        before = process_time()
        for part in parts:
            peeked = Peeked(part, peeked)
            predicate(peeked)
        passed += process_time() - before
    gc.enable()
    return passed


def check_growth(line: str, dear: Dear) -> None:
    """See that twice as many bytes cost about twice as much, byte by byte and at once."""
    # What is imported or built at the first use is not the client's cost.
    in_pieces(of_streams()[line], dear.of(_SIZES[-1]), range(1, _SIZES[-1]))
    for is_cut in (True, False):
        few, some, many = (
            _steps_for(of_streams()[line], dear.of(size), is_cut=is_cut) for size in _SIZES
        )
        assert many - some <= 3 * (some - few) + 300, (line, dear, (few, some, many))


def check_pattern(pattern: str) -> None:
    """See the same of a user's pattern, with all streams that are known to be bad."""
    for number in range(len(streams(1))):
        # Each has kept nothing that would make it quicker.
        few, some, many = (
            _steps_for(predicate(pattern), streams(size)[number], is_cut=True) for size in _SIZES
        )
        assert many - some <= 3 * (some - few) + 3000, (pattern, number, (few, some, many))


def _steps_for(asked: Predicate, data: bytes, *, is_cut: bool) -> int:
    return steps_in(partial(in_pieces, asked, data, range(1, len(data)) if is_cut else ()))
