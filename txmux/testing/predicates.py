"""Ask a predicate about a sample in every way that a network could deliver it."""

import contextlib
import gc
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn, TypeAlias

from txmux.interfaces import Datagrams, Exchange, NameKey, Peeked, Predicate, Verdict
from txmux.wire.facts import LONGEST_FACT

Sample: TypeAlias = Peeked | bytes | Sequence[bytes]

_SHOWN, _SHOWN_OF_SEVERAL = 120, 60


def ask(predicate: Predicate, sample: Peeked) -> Verdict:
    """Return the verdict; an `AssertionError` if the predicate raises or gives something else."""
    try:
        verdict = predicate(sample)
    except Exception as error:
        message = f"the predicate raised {error!r} with {len(sample)} bytes: {shown(sample)}"
        raise AssertionError(message) from error
    if not isinstance(verdict, Verdict):
        fail(f"the predicate gave {verdict!r}, not a Verdict", sample)
    return verdict


def facts(predicate: Predicate, sample: Peeked) -> dict[str, str]:
    """Return what a predicate has learnt, if it learns at all, and check that it is fit for a log.

    Args:
        predicate: What a matcher made of its options.
        sample: As for `ask`.

    Raises:
        AssertionError: A name is not a word, or a value is more than 255 printable ASCII characters.
    """
    learnt = getattr(predicate, "learnt", None)
    if learnt is None:
        return {}
    try:
        by_name = learnt(sample)
    except Exception as error:
        raise AssertionError(f"learnt raised {error!r} of {shown(sample)}") from error
    if not isinstance(by_name, Mapping):
        fail(f"learnt gave {by_name!r}, not a mapping", sample)
    for name, fact in by_name.items():
        if not (isinstance(name, str) and re.fullmatch("[a-z][a-z0-9_]*", name)):
            fail(f"the fact {name!r} must be called by a lower-case word", sample)
        if not (isinstance(fact, str) and fact.isascii() and fact.isprintable()):
            fail(f"the fact {name} is {fact!r}, not printable ASCII", sample)
        if len(fact) > LONGEST_FACT:
            fail(f"the fact {name} has {len(fact)} characters, more than 255", sample)
    return dict(by_name)


def check_first_byte(predicate: Predicate, sample: Peeked, verdict: Verdict) -> None:
    """Check that a sample is ruled out if its first byte is not among `first_bytes`."""
    first = getattr(predicate, "first_bytes", None)
    data = sample.data
    if first is not None and data and data[0] not in first and verdict is not Verdict.NO:
        fail(f"{verdict.name}, but first_bytes has no {data[0]:#04x}", sample)


def check_key(
    predicate: Predicate, sample: Peeked, verdict: Verdict, before: str | None
) -> str | None:
    """Check that the key's name, once read, is still the one `before`, and that a strange name is a ``NO``; return the name if known."""
    key: NameKey | None = getattr(predicate, "key", None)
    if key is None:
        return None
    try:
        name = key.read(sample)
    except Exception as error:
        raise AssertionError(f"key.read raised {error!r} of {shown(sample)}") from error
    if name is None and key.begun is not None and not key.under and verdict is not Verdict.NO:
        begun = key.begun(sample)
        if not any(one.startswith(begun) for one in key.exact):
            fail(f"{verdict.name}, but no name of the key begins with {begun!r}", sample)
    if before is not None and name != before:
        unit = "datagrams" if isinstance(sample, Datagrams) else "bytes"
        fail(f"key.read gave {name!r} after {before!r} for fewer {unit}", sample)
    if name is not None and verdict is not Verdict.NO and not _is_below(name, key):
        fail(f"{verdict.name}, but the key has no {name!r}", sample)
    return name


def _is_below(name: str, key: NameKey) -> bool:
    labels = name.split(".")
    parents = (".".join(labels[n:]) for n in range(1, len(labels)))
    return name in key.exact or not key.under.isdisjoint(parents)


def fail(message: str, sample: Sample) -> NoReturn:
    """Raise an `AssertionError` that names the sample."""
    raise AssertionError(f"{message}: {shown(sample)}")


def shown(sample: Sample) -> str:
    """Name a sample in a message: its bytes, or the first of them and how many there are."""
    if isinstance(sample, Datagrams):
        sample = sample.datagrams
    if isinstance(sample, Peeked):
        sample = sample.data
    if isinstance(sample, bytes):
        return _shown(sample, _SHOWN)
    return f"[{', '.join(_shown(part, _SHOWN_OF_SEVERAL) for part in sample)}]"


def _shown(data: bytes, most: int) -> str:
    return repr(data) if len(data) <= most else f"{data[:most]!r}… ({len(data)} bytes)"


_SHORT_SAMPLE = 400


class Decided(NamedTuple):
    """The verdict of a predicate, and the byte at which it was first given."""

    verdict: Verdict
    at: int


def decided(predicate: Predicate, data: bytes) -> Decided:
    """Check the contract of a predicate on a sample.

    The sample is sent byte by byte; then, for every cut (for some, if it is long), its first part is asked about
    anew, and the whole after that part. All of that has to agree, and what the predicate declares
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
        exchanges = () if find is None else tuple(find(peeked))
    except Exception as error:
        raise AssertionError(f"exchanges raised {error!r} of {shown(peeked.data)}") from error
    requests = [exchange.request for exchange in exchanges]
    if not all(requests) or not peeked.startswith(b"".join(requests)):
        fail(f"exchanges gave the requests {requests!r}, with which it does not begin", peeked.data)
    return exchanges


def _check_exchanges(
    exchanges: tuple[Exchange, ...], later: tuple[Exchange, ...], data: bytes
) -> None:
    """Check that those which are there in full are there, and that none is changed by what follows."""
    ends = itertools.accumulate(len(exchange.request) for exchange in later)
    due = sum(end <= len(data) for end in ends)
    if exchanges != later[:due]:
        fail(f"exchanges gave {exchanges!r}, but {later!r} for more bytes", data)


def _cuts(data: bytes, deciding: int) -> Iterable[int]:
    if len(data) <= _SHORT_SAMPLE:
        return range(1, len(data) + 1)
    near = range(max(1, deciding - 20), min(len(data), deciding + 20))
    apart = range(1, len(data), len(data) // 40)
    return sorted({*range(1, 40), *near, *apart, len(data)})
