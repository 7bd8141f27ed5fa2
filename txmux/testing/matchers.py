"""The contract of a matcher as a suite of checks, for the authors of plugins."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Predicate, Transport, Verdict
from txmux.testing import words
from txmux.testing.predicates import Decided, decided, in_pieces, shown, steps_in

_FILLERS = (b"\0", b"a", b"1", b" ", b"\r\n", b"\xff")
_TRACED = 2048


def check_limits(predicate: Predicate, streams: Sequence[bytes]) -> None:
    """Check every first byte, and beginnings of streams with unexpected continuations."""
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
    for stream in sorted(undecided, key=lambda stream: (len(stream), stream))[-3:]:
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
    in_pieces(predicate, stream, range(1, len(stream)))
    # An automaton may be built while it is first used, or again where it has become too large; that is not the client's cost.
    for _ in range(2):
        quarter, half, whole = (
            steps_in(partial(in_pieces, predicate, stream[:size], range(1, size))) for size in sizes
        )
        # Of a linear cost the second difference is twice the first one, of a square four times.
        if whole - half <= 3 * (half - quarter) + 100:
            return
    raise AssertionError(
        f"byte by byte, {sizes} bytes take {quarter, half, whole} steps, which grows faster than the bytes; "
        f"let a parser continue where it was, with Peeked.parsed: {shown(stream)}"
    )


def check_matcher(
    matcher: IProtocolMatcher,
    samples: Iterable[bytes | tuple[bytes, int]],
    not_samples: Iterable[bytes | tuple[bytes, int]] = (),
    options: Mapping[str, str] | None = None,
    *,
    undecided: Iterable[bytes] = (),
    examples: int | None = None,
) -> None:
    """Check all that `txmux.interfaces` asks of a matcher and its predicates.

    The matcher's own words are well formed; every option's example works; bad values raise only `OptionError`.
    Then predicates are asked: the one of `options`, and one for each option's example. Samples, what comes of them
    by small changes, and any bytes at all get one answer however they are cut. Nothing raises, nothing is undecided
    beyond ``longest``, first bytes, key and facts are as declared, and the cost of a client that sends byte by
    byte grows with its bytes, not with their square. Function calls and lines are counted for that, not seconds.

    Args:
        matcher: The plugin.
        samples: First bytes of clients that the predicate of `options` has to match; with a number, at that byte and
            neither sooner nor later, counted from 1.
        not_samples: First bytes for which it has to say ``NO``; with a number, at that byte.
        options: The options of the ``match =`` line that is checked.
        undecided: First bytes that are not enough for either.
        examples: How many random streams hypothesis makes for each predicate, and values for each option; by default as many as
            its profile says, which are 100 by default. 0 makes none, and needs no hypothesis.

    Raises:
        AssertionError: The contract is broken; the message says where.
        ImportError: hypothesis is not installed.
    """
    options = dict(options or {})
    words.check_words(matcher)
    if Transport.TCP not in getattr(matcher, "transports", (Transport.TCP,)):
        raise AssertionError(f"{matcher.name} is not for TCP: use check_datagrams")
    try:
        predicate = matcher.predicate(options)
    except OptionError as error:
        message = f"{words.line_of(matcher, options)} cannot be made: {error}"
        raise AssertionError(message) from error
    matched = tuple(samples)
    with words.about(words.line_of(matcher, options)):
        check_predicate(predicate, matched, not_samples, undecided=undecided, examples=examples)
    streams = [_row(sample)[0] for sample in matched]
    for line, given in words.each_example(matcher):
        with words.about(line):
            check_predicate(matcher.predicate(given), more=streams, examples=examples)
    for option in matcher.options:
        words.check_values(matcher, option.name, examples)


def check_predicate(
    predicate: Predicate,
    samples: Iterable[bytes | tuple[bytes, int]] = (),
    not_samples: Iterable[bytes | tuple[bytes, int]] = (),
    *,
    undecided: Iterable[bytes] = (),
    more: Iterable[bytes] = (),
    examples: int | None = None,
) -> None:
    """Check what `check_matcher` checks of the predicate of one ``match =`` line.

    Args:
        predicate: What a matcher made of its options.
        samples: As for `check_matcher`.
        not_samples: As for `check_matcher`.
        undecided: As for `check_matcher`.
        more: First bytes of which any answer is right, but the same one however they are cut.
        examples: As for `check_matcher`.

    Raises:
        AssertionError: The contract is broken; the message says where.
        ImportError: hypothesis is not installed.
    """
    expected = [
        *((Verdict.MATCH, *_row(sample)) for sample in samples),
        *((Verdict.NO, *_row(sample)) for sample in not_samples),
        *((Verdict.NEED_MORE, data, None) for data in undecided),
    ]
    for verdict, data, at in expected:
        _expect(decided(predicate, data), verdict, at, data)
    streams = tuple(dict.fromkeys((*(data for _, data, _ in expected), *more)))
    check_limits(predicate, streams)
    if examples != 0:
        _check_random(predicate, streams, examples)


def _row(sample: bytes | tuple[bytes, int]) -> tuple[bytes, int | None]:
    return (sample, None) if isinstance(sample, bytes) else sample


def _check_random(predicate: Predicate, streams: Sequence[bytes], examples: int | None) -> None:
    strategy = words.hypothesis().strategies.binary(min_size=1, max_size=40)
    nonempty = [data for data in streams if data]
    if nonempty:
        strategy = words.changed(nonempty).filter(bool) | strategy
    words.try_many(lambda data: decided(predicate, data), strategy, examples)


def _expect(decision: Decided, verdict: Verdict, at: int | None, data: bytes) -> None:
    if decision.verdict is not verdict:
        raise AssertionError(
            f"{decision.verdict.name} at byte {decision.at}, not {verdict.name}: {shown(data)}"
        )
    if at is not None and decision.at != at:
        message = f"{verdict.name} at byte {decision.at}, but it is due at byte {at}: {shown(data)}"
        raise AssertionError(message)
