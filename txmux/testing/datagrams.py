"""The contract of a matcher for UDP as a suite of checks, for the authors of plugins."""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from txmux.detection.registry import datagram_predicate, transports_of
from txmux.errors import OptionError
from txmux.interfaces import (
    MOST_DATAGRAMS,
    Datagrams,
    IProtocolMatcher,
    Predicate,
    Transport,
    Verdict,
)
from txmux.testing import predicates, words

_SIZES = (8_000, 16_000, 32_000)
_FILLERS = (b"\0", b"a", b"\xff")


def check_datagrams(
    matcher: IProtocolMatcher,
    samples: Iterable[bytes | Sequence[bytes]],
    not_samples: Iterable[bytes | Sequence[bytes]] = (),
    options: Mapping[str, str] | None = None,
    *,
    undecided: Iterable[bytes | Sequence[bytes]] = (),
    examples: int | None = None,
) -> None:
    """Check of a matcher for UDP what `check_matcher` checks of one for TCP.

    Predicates are asked about samples, about each beginning of their datagrams, about datagrams that come twice or in
    another order, and about any bytes at all. Nothing raises; an answer is the same however many datagrams come at once,
    it is never changed by later ones, and it is there with ``longest`` of them; first bytes, key and facts are as
    declared; and what a datagram costs grows with its bytes, not with their square.

    Args:
        matcher: The plugin.
        samples: First datagrams of clients that the predicate of `options` has to match: one, or several of a flow.
        not_samples: Those for which it has to say ``NO``.
        options: The options of the ``match =`` line that is checked.
        undecided: Those that are not enough for either.
        examples: How many random flows hypothesis makes for each predicate, and values for each option; 0 makes none, and
            needs no hypothesis.

    Raises:
        AssertionError: The contract is broken; the message says where.
        ImportError: hypothesis is not installed.
    """
    options = dict(options or {})
    words.check_words(matcher)
    if Transport.UDP not in transports_of(matcher):
        message = f"{matcher.name} is not for UDP: its 'transports' has no Transport.UDP"
        raise AssertionError(message)
    expected = [
        (verdict, _flow(sample))
        for verdict, several in (
            (Verdict.MATCH, samples),
            (Verdict.NO, not_samples),
            (Verdict.NEED_MORE, undecided),
        )
        for sample in several
    ]
    with words.about(words.line_of(matcher, options)):
        predicate = _made(matcher, options)
        for verdict, flow in expected:
            decision = flow_decided(predicate, flow)
            if decision.verdict is not verdict:
                message = f"{decision.verdict.name}, not {verdict.name}: {predicates.shown(flow)}"
                raise AssertionError(message)
        flows = [flow for _, flow in expected]
        _check_flows(predicate, flows, examples)
    for line, given in words.each_example(matcher):
        with words.about(line):
            _check_flows(_made(matcher, given), flows, examples)
    for option in matcher.options:
        words.check_values(matcher, option.name, examples)


def flow_decided(predicate: Predicate, datagrams: Sequence[bytes]) -> predicates.Decided:
    """Check the contract of a predicate for UDP on the first datagrams of a flow.

    They come one by one; then several at once, and alone; all of that has to agree.

    Args:
        predicate: As it is asked about datagrams.
        datagrams: At least one; those after the first four are never seen.

    Returns:
        The verdict, and how many datagrams it took; for ``NEED_MORE`` all of them.

    Raises:
        AssertionError: The contract is broken; flow and answers are named.
    """
    flow = tuple(datagrams)[:MOST_DATAGRAMS]
    longest = predicate.longest
    if not isinstance(longest, int) or not 1 <= longest <= MOST_DATAGRAMS:
        raise AssertionError(f"longest is {longest!r}, not a number of datagrams from 1 to 4")
    decision = predicates.Decided(Verdict.NEED_MORE, len(flow))
    seen: Datagrams | None = None
    name: str | None = None
    for count in range(1, len(flow) + 1):
        seen = Datagrams(flow[:count], seen)
        verdict = predicates.ask(predicate, seen)
        if decision.verdict is Verdict.NEED_MORE and verdict is not Verdict.NEED_MORE:
            decision = predicates.Decided(verdict, count)
        if verdict is not decision.verdict:
            predicates.fail(
                f"{verdict.name} after {decision.verdict.name} for fewer datagrams", flow[:count]
            )
        if verdict is Verdict.NEED_MORE and count >= longest:
            predicates.fail(
                f"NEED_MORE with {count} datagrams, but longest is {longest}", flow[:count]
            )
        alone = Datagrams(flow[:count])
        if predicates.ask(predicate, alone) is not verdict:
            predicates.fail(f"{verdict.name} one by one, but not at once", flow[:count])
        predicates.check_first_byte(predicate, alone, verdict)
        name = predicates.check_key(predicate, alone, verdict, name)
        if predicates.facts(predicate, alone) != predicates.facts(predicate, seen):
            predicates.fail("learnt other facts one by one than at once", flow[:count])
    return decision


def _flow(sample: bytes | Sequence[bytes]) -> tuple[bytes, ...]:
    flow = (sample,) if isinstance(sample, bytes) else tuple(sample)
    if not all(isinstance(datagram, bytes) for datagram in flow):
        message = f"{sample!r} is not what a client says; write the bytes of a datagram, or a list of those of a flow"
        raise AssertionError(message)
    return flow


def _made(matcher: IProtocolMatcher, options: Mapping[str, str]) -> Predicate:
    try:
        predicate = datagram_predicate(matcher, options, matcher.predicate(options))
    except OptionError as error:
        raise AssertionError(f"cannot be made: {error}") from error
    if predicate is None:
        raise AssertionError("has no predicate for datagrams")
    return predicate


def _check_flows(
    predicate: Predicate, flows: Sequence[Sequence[bytes]], examples: int | None
) -> None:
    flow_decided(predicate, [b""])
    for byte in range(256):
        flow_decided(predicate, [bytes([byte])])
    for flow in flows:
        _check_variants(predicate, tuple(flow))
    for flow in flows[:8]:
        _check_cost(predicate, flow)
    if examples != 0:
        _check_random(predicate, [tuple(flow) for flow in flows], examples)


def _check_variants(predicate: Predicate, flow: tuple[bytes, ...]) -> None:
    """Ask about a flow with datagrams that are cut off, come twice, in another order, or not at all."""
    shuffled = list(flow)
    random.Random(len(flow)).shuffle(shuffled)  # nosec B311  # noqa: S311 - not for secrets
    doubled = [datagram for datagram in flow for _ in range(2)]
    for variant in (shuffled, flow[::-1], doubled, (*flow, b""), (*flow, b"\xff" * 40), flow[1:]):
        if variant:
            flow_decided(predicate, variant)
    for number, datagram in enumerate(flow):
        step = max(1, len(datagram) // 100)
        for cut in (*range(1, min(len(datagram), 60)), *range(60, len(datagram), step)):
            flow_decided(predicate, (*flow[:number], datagram[:cut], *flow[number + 1 :]))
        flow_decided(predicate, (*flow[:number], datagram + b"\0", *flow[number + 1 :]))


def _check_cost(predicate: Predicate, flow: Sequence[bytes]) -> None:
    starts = {
        flow[0][:cut] for cut in (1, len(flow[0]) // 2, len(flow[0]) - 1, len(flow[0])) if cut
    }
    for start in sorted(starts):
        for filler in _FILLERS:
            long = [Datagrams((start + filler * size,)) for size in _SIZES]
            predicates.ask(predicate, Datagrams((long[0].data,)))
            small, middle, large = (
                predicates.steps_in(partial(predicates.ask, predicate, flow)) for flow in long
            )
            if large - middle > 3 * (middle - small) + 200:
                predicates.fail(
                    f"datagrams of {_SIZES} bytes take {small, middle, large} steps, which grows faster than the bytes",
                    (start, filler),
                )


def _check_random(
    predicate: Predicate, flows: Sequence[tuple[bytes, ...]], examples: int | None
) -> None:
    st = words.hypothesis().strategies
    piece = st.binary(max_size=60)
    datagrams = [datagram for flow in flows for datagram in flow if datagram]
    if datagrams:
        piece = piece | words.changed(datagrams) | st.sampled_from(datagrams)
    strategy = st.lists(piece, min_size=1, max_size=MOST_DATAGRAMS)
    words.try_many(lambda flow: flow_decided(predicate, flow), strategy, examples)
