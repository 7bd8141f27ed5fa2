"""Ask a predicate about a sample in every way that a network could deliver it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from txmux.interfaces import Exchange, Peeked, Verdict
from txmux.testing.asking import ask, check_first_byte, check_key, facts, fail, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from txmux.interfaces import Predicate

__all__ = ["Decided", "calls_in", "decided", "in_pieces", "steps_in"]

_SHORT_SAMPLE = 400


class Decided(NamedTuple):
    """What a predicate said in the end, and at which byte it first said so."""

    verdict: Verdict
    at: int


def decided(predicate: Predicate, data: bytes) -> Decided:
    """Check the contract of a predicate on a sample.

    The sample is sent byte by byte; then, for every cut (for some, if it is long), its first part is asked about
    afresh, and the whole after that part. All of that has to agree, and what the predicate tells of itself
    (`longest`, and `txmux.interfaces.Narrows`) has to be true. So has what `txmux.interfaces.Converses` gives.

    Args:
        predicate: What a matcher made of its options.
        data: The first bytes of a stream.

    Returns:
        The verdict on the sample and the number of bytes it took; for ``NEED_MORE`` all of them.

    Raises:
        AssertionError: The contract is broken; sample, cut and both answers are named.
    """
    reference = in_pieces(predicate, data, range(1, len(data)))
    longest = _longest(predicate)
    if reference.verdict is Verdict.NEED_MORE and len(data) >= longest:
        fail(f"NEED_MORE with {len(data)} bytes, but longest is {longest}", data)
    if reference.at > longest:
        fail(f"{reference.verdict.name} only at byte {reference.at}, longest is {longest}", data)
    check_first_byte(predicate, Peeked(data), reference.verdict)
    exchanges = _exchanges(predicate, Peeked(data))
    learnt = facts(predicate, Peeked(data))
    named = None
    for cut in _cuts(data, reference.at):
        part = Peeked(data[:cut])
        expected = reference.verdict if cut >= reference.at else Verdict.NEED_MORE
        _agree(ask(predicate, part), expected, f"the first {cut} bytes at once", data)
        facts(predicate, part)
        named = check_key(predicate, part, expected, named)
        _check_exchanges(_exchanges(predicate, part), exchanges, part.data)
        whole = Peeked(data, part)
        _agree(ask(predicate, whole), reference.verdict, f"all bytes, cut at byte {cut}", data)
        after_cut = facts(predicate, whole)
        if after_cut != learnt:
            fail(f"learnt {after_cut} when cut at byte {cut}, but {learnt} when uncut", data)
    return reference


def in_pieces(predicate: Predicate, data: bytes, cuts: Iterable[int]) -> Decided:
    """Send a sample in the pieces that the cuts make, and ask until the predicate decides.

    Args:
        predicate: What a matcher made of its options.
        data: The first bytes of a stream.
        cuts: Numbers of bytes that have come when it is asked, rising; all of them come last.

    Returns:
        The verdict, and how many bytes had come.
    """
    peeked = None
    for length in (*cuts, len(data)):
        peeked = Peeked(data[:length], peeked)
        verdict = ask(predicate, peeked)
        if verdict is not Verdict.NEED_MORE:
            return Decided(verdict, length)
    return Decided(Verdict.NEED_MORE, len(data))


def calls_in(action: Callable[[], object]) -> int:
    """Count the calls of functions, Python's own included, that an action makes: a clock that is never slow."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    with _without_collecting():
        sys.setprofile(count)
        try:
            action()
        finally:
            sys.setprofile(before)
    return calls


def steps_in(action: Callable[[], object]) -> int:
    """Count what `calls_in` counts and every line that runs, so that loops without calls cost, too."""
    lines = 0

    def count(
        _frame: FrameType, event: str, _argument: object
    ) -> Any:  # pragma: no cover - a tracer is not traced
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    with _without_collecting():
        sys.settrace(count)
        try:
            calls = calls_in(action)
        finally:
            sys.settrace(before)
    return calls + lines


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """What the garbage collector finds to do is not the cost of what is measured."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _agree(verdict: Verdict, expected: Verdict, when: str, data: bytes) -> None:
    if verdict is not expected:
        fail(f"{verdict.name} for {when}, but {expected.name} byte by byte", data)


def _longest(predicate: Predicate) -> int:
    longest = predicate.longest
    if not isinstance(longest, int) or longest < 1:
        raise AssertionError(f"longest is {longest!r}, not a number of bytes from 1")
    return longest


def _exchanges(predicate: Predicate, peeked: Peeked) -> tuple[Exchange, ...]:
    find = getattr(predicate, "exchanges", None)
    try:
        found = () if find is None else tuple(find(peeked))
    except Exception as error:
        raise AssertionError(f"exchanges raised {error!r} of {shown(peeked.data)}") from error
    requests = [exchange.request for exchange in found]
    if not all(requests) or not peeked.startswith(b"".join(requests)):
        fail(f"exchanges gave the requests {requests!r}, with which it does not begin", peeked.data)
    return found


def _check_exchanges(found: tuple[Exchange, ...], later: tuple[Exchange, ...], data: bytes) -> None:
    """Check that those which are there in full are there, and that none is changed by what follows."""
    ends = itertools.accumulate(len(exchange.request) for exchange in later)
    due = sum(end <= len(data) for end in ends)
    if found != later[:due]:
        fail(f"exchanges gave {found!r}, but {later!r} for more bytes", data)


def _cuts(data: bytes, deciding: int) -> Iterable[int]:
    if len(data) <= _SHORT_SAMPLE:
        return range(1, len(data) + 1)
    near = range(max(1, deciding - 20), min(len(data), deciding + 20))
    apart = range(1, len(data), len(data) // 40)
    return sorted({*range(1, 40), *near, *apart, len(data)})
