"""Whether a predicate keeps its bounds: of the bytes it needs, and of what they cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txmux.interfaces import Verdict
from txmux.testing.asking import shown
from txmux.testing.predicates import decided, in_pieces, steps_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.interfaces import Predicate

__all__ = ["check_limits"]

_FILLERS = (b"\0", b"a", b"1", b" ", b"\r\n", b"\xff")
_TRACED = 2048


def check_limits(predicate: Predicate, streams: Sequence[bytes]) -> None:
    """Check every first byte, and beginnings of streams that go on as nobody would expect.

    Args:
        predicate: What a matcher made of its options.
        streams: Samples, whatever the predicate says of them.

    Raises:
        AssertionError: It needs more than `longest`, or its cost grows faster than the bytes.
    """
    for byte in range(256):
        decided(predicate, bytes([byte]))
    starts = {b"\0"}
    for data in (stream[:_TRACED] for stream in streams):
        at = decided(predicate, data).at
        starts |= {data[:start] for start in (1, at // 2, at - 1, at) if start > 0}
    for start in sorted(starts):
        for filler in _FILLERS:
            _check_bounded(predicate, start, filler)
    _check_cost(predicate, streams)


def _check_bounded(predicate: Predicate, start: bytes, filler: bytes) -> None:
    longest = predicate.longest
    stream = (start + filler * (longest // len(filler) + 1))[:longest]
    pieces = in_pieces(predicate, stream, (len(start),))
    at_once = in_pieces(predicate, stream, ())
    if pieces.verdict is not at_once.verdict or at_once.verdict is Verdict.NEED_MORE:
        raise AssertionError(
            f"{at_once.verdict.name} for all of {longest} bytes, which is longest, and "
            f"{pieces.verdict.name} when {len(start)} came first: {shown(start)}, then only {filler!r}"
        )


def _check_cost(predicate: Predicate, streams: Sequence[bytes]) -> None:
    """Find streams that leave the predicate undecided for long, and send the longest byte by byte."""
    undecided = set()
    for start in {data[:cut] for data in streams for cut in (1, len(data) // 2, len(data) - 1)}:
        for filler in {*(bytes([byte]) for byte in start[-8:]), *_FILLERS}:
            stream = start + filler * (min(predicate.longest, _TRACED) // len(filler))
            at = _undecided(predicate, stream)
            # The first quarter has the sample in it, and all else is of one kind.
            if at >= 4 * max(len(start), 16):
                undecided.add(stream[:at])
    for stream in sorted(undecided, key=len)[-3:]:
        _check_linear(predicate, stream)


def _undecided(predicate: Predicate, stream: bytes) -> int:
    """Find by bisection how many bytes of a stream leave a predicate undecided."""
    low, high = 0, len(stream)
    while low < high:
        middle = (low + high + 1) // 2
        if in_pieces(predicate, stream[:middle], ()).verdict is Verdict.NEED_MORE:
            low = middle
        else:
            high = middle - 1
    return low


def _check_linear(predicate: Predicate, stream: bytes) -> None:
    sizes = (len(stream) // 4, len(stream) // 2, len(stream))
    # An automaton may be built while it is first used; what that takes is not the client's cost.
    in_pieces(predicate, stream, range(1, len(stream)))
    quarter, half, whole = (
        steps_in(partial(in_pieces, predicate, stream[:size], range(1, size))) for size in sizes
    )
    # Of a linear cost the second difference is twice the first one, of a square four times.
    if whole - half > 3 * (half - quarter) + 100:
        raise AssertionError(
            f"byte by byte, {sizes} bytes take {quarter, half, whole} steps, which grows faster than the bytes; "
            f"let a parser go on where it was, with Peeked.parsed: {shown(stream)}"
        )
