"""Ask a predicate about a sample in every way that a network could deliver it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple
from unittest import TestCase

from txmux.interfaces import Peeked, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from txmux.interfaces import Predicate

__all__ = ["Decided", "calls_in", "decided", "facts", "in_pieces"]

_SHORT_SAMPLE = 400
_check = TestCase()


class Decided(NamedTuple):
    """What a predicate said in the end, and at which byte it first said so."""

    verdict: Verdict
    at: int


def decided(predicate: Predicate, data: bytes) -> Decided:
    """Check the contract of a predicate on a sample.

    The sample is sent byte by byte; then, for every cut (for some, if it is long), its first part is asked about
    afresh, and the whole after that part. All of that has to agree.

    Returns:
        The verdict on the sample and the number of bytes it took; for ``NEED_MORE`` all of them.
    """
    reference = in_pieces(predicate, data, range(1, len(data)))
    if reference.verdict is Verdict.NEED_MORE:
        _check.assertLess(len(data), predicate.longest, f"undecided beyond longest: {data!r}")
    _check.assertLessEqual(reference.at, predicate.longest, f"decided beyond longest: {data!r}")
    for cut in _cuts(data, reference.at):
        part = Peeked(data[:cut])
        expected = reference.verdict if cut >= reference.at else Verdict.NEED_MORE
        _check.assertIs(predicate(part), expected, f"asked afresh with {cut} bytes of {data!r}")
        whole = Peeked(data, part)
        _check.assertIs(predicate(whole), reference.verdict, f"cut at byte {cut}: {data!r}")
        _check.assertEqual(facts(predicate, whole), facts(predicate, Peeked(data)))
        facts(predicate, part)
    return reference


def in_pieces(predicate: Predicate, data: bytes, cuts: Iterable[int]) -> Decided:
    """Send a sample in the pieces that the cuts make, and ask until the predicate decides."""
    peeked = None
    for length in (*cuts, len(data)):
        peeked = Peeked(data[:length], peeked)
        verdict = predicate(peeked)
        if verdict is not Verdict.NEED_MORE:
            return Decided(verdict, length)
    return Decided(Verdict.NEED_MORE, len(data))


def facts(predicate: Predicate, peeked: Peeked) -> dict[str, str]:
    """Give what a predicate has learnt, if it learns at all, and check that it is fit for a log."""
    learnt = getattr(predicate, "learnt", None)
    known: dict[str, str] = learnt(peeked) if learnt else {}
    for fact in known.values():
        _check.assertTrue(fact.isascii() and fact.isprintable(), fact)
        _check.assertLessEqual(len(fact), 255)
    return known


def calls_in(action: Callable[[], object]) -> int:
    """Count the calls of functions, Python's own included, that an action makes: a clock that is never slow."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return calls


def _cuts(data: bytes, deciding: int) -> Iterable[int]:
    if len(data) <= _SHORT_SAMPLE:
        return range(len(data) + 1)
    near = range(max(0, deciding - 20), min(len(data), deciding + 20))
    apart = range(0, len(data), len(data) // 40)
    return sorted({*range(40), *near, *apart, len(data)})
