"""The contract of a matcher as a suite of checks, for the authors of plugins."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
from typing import TYPE_CHECKING, Any

from zope.interface import Invalid
from zope.interface.verify import verifyObject

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Verdict
from txmux.testing.limits import check_limits
from txmux.testing.predicates import Decided, decided, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from txmux.interfaces import Predicate

__all__ = ["check_matcher", "check_predicate", "with_example"]

_NAME = re.compile("[a-z0-9-]+")
_OPTION_NAME = re.compile("[a-z0-9_-]+")
_CHANGED = 2048
"""Longer samples are cut off here before they are changed at random, which changes their beginning only."""
_ODD_VALUES = (
    *"*?~,[\\ \0\né\u0661",
    *("", "~(", r"\x", "-1", "1e9", "0x", "a,,b", "9" * 5000, "a" * 5000),
)


def check_matcher(
    matcher: IProtocolMatcher,
    samples: Iterable[bytes | tuple[bytes, int]],
    not_samples: Iterable[bytes | tuple[bytes, int]] = (),
    options: Mapping[str, str] | None = None,
    *,
    undecided: Iterable[bytes] = (),
    examples: int = 100,
) -> None:
    """Check all that `txmux.interfaces` asks of a matcher and its predicates.

    The matcher's own words are well formed; every option's example works; bad values raise only `OptionError`.
    Then predicates are asked: the one of `options`, and one for each option's example. Samples, what comes of them
    by small changes, and any bytes at all get one answer however they are cut. Nothing raises, nothing is undecided
    beyond ``longest``, first bytes, key and facts are as they are told, and the cost of a client that sends byte by
    byte grows with its bytes, not with their square. Function calls and lines are counted for that, not seconds.

    Args:
        matcher: The plugin.
        samples: First bytes of clients that the predicate of `options` has to match; with a number, at that byte and
            neither sooner nor later, counted from 1.
        not_samples: First bytes for which it has to say ``NO``; with a number, at that byte.
        options: The options of the ``match =`` line that is checked.
        undecided: First bytes that are not enough for either.
        examples: How many random streams hypothesis makes for each predicate, and values for each option; 0 makes
            none, and needs no hypothesis.

    Raises:
        AssertionError: The contract is broken; the message says where.
        ImportError: hypothesis is not installed.
    """
    options = dict(options or {})
    _check_words(matcher)
    try:
        predicate = matcher.predicate(options)
    except OptionError as error:
        raise AssertionError(f"{_line(matcher, options)} cannot be made: {error}") from error
    matched = tuple(samples)
    with _about(_line(matcher, options)):
        check_predicate(predicate, matched, not_samples, undecided=undecided, examples=examples)
    streams = [_row(sample)[0] for sample in matched]
    for line, asked in _of_examples(matcher):
        with _about(line):
            check_predicate(asked, more=streams, examples=examples)
    for option in matcher.options:
        _check_values(matcher, option.name, examples)


def check_predicate(
    predicate: Predicate,
    samples: Iterable[bytes | tuple[bytes, int]] = (),
    not_samples: Iterable[bytes | tuple[bytes, int]] = (),
    *,
    undecided: Iterable[bytes] = (),
    more: Iterable[bytes] = (),
    examples: int = 100,
) -> None:
    """Check what `check_matcher` checks of the predicate of one ``match =`` line.

    Args:
        predicate: What a matcher made of its options.
        samples: As for `check_matcher`.
        not_samples: As for `check_matcher`.
        undecided: As for `check_matcher`.
        more: First bytes of which any answer is right, but the same one however they are cut.
        examples: How many random streams hypothesis makes; 0 makes none, and needs no hypothesis.

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
    if examples:
        _check_random(predicate, streams, examples)


def with_example(
    matcher: IProtocolMatcher, name: str, value: str | None = None
) -> dict[str, str] | None:
    """Find options with which a predicate can be made: one option, and as few examples of others as it takes.

    Args:
        matcher: The plugin.
        name: The option; if empty, others alone.
        value: Its value; by default its example.

    Returns:
        The options, or ``None`` if none can be used.
    """
    known = {option.name: option.example for option in matcher.options}
    given = {name: known[name] if value is None else value} if name else {}
    others = [other for other in known if other != name]
    for count in range(len(others) + 1):
        for chosen in itertools.combinations(others, count):
            options = given | {other: known[other] for other in chosen}
            with contextlib.suppress(OptionError):
                matcher.predicate(options)
                return options
    return None


def _row(sample: bytes | tuple[bytes, int]) -> tuple[bytes, int | None]:
    return (sample, None) if isinstance(sample, bytes) else sample


def _check_words(matcher: IProtocolMatcher) -> None:
    try:
        verifyObject(IProtocolMatcher, matcher)
    except Invalid as error:
        raise AssertionError(f"{matcher!r} does not provide IProtocolMatcher: {error}") from error
    if not (isinstance(matcher.name, str) and _NAME.fullmatch(matcher.name)):
        raise AssertionError(
            f"the name {matcher.name!r} must be lower-case letters, digits and '-'"
        )
    if matcher.name == "not":
        raise AssertionError("'not' cannot be a matcher's name: it turns a match round")
    _check_line(matcher.summary, f"the summary of {matcher.name}")
    names: set[str] = set()
    for option in matcher.options:
        if not isinstance(option, Option):
            raise AssertionError(f"{option!r} is not a txmux.interfaces.Option")  # noqa: TRY004
        where = f"the option {option.name!r} of {matcher.name}"
        if not _OPTION_NAME.fullmatch(option.name):
            raise AssertionError(f"{where} must be lower-case letters, digits, '-' and '_'")
        if option.name in names:
            raise AssertionError(f"{where} is there twice")
        names.add(option.name)
        _check_line(option.meaning, f"the meaning of {where}")
        _check_line(option.example, f"the example of {where}")


def _check_line(text: object, what: str) -> None:
    if not (isinstance(text, str) and text and text == text.strip() and text.isprintable()):
        raise AssertionError(f"{what} must be one line of text: {text!r}")


def _of_examples(matcher: IProtocolMatcher) -> Iterator[tuple[str, Predicate]]:
    for option in matcher.options:
        options = with_example(matcher, option.name)
        if options is None:
            line = _line(matcher, {option.name: option.example})
            raise AssertionError(f"the example of {line} does not work, with no other examples")
        yield _line(matcher, options), matcher.predicate(options)


def _check_values(matcher: IProtocolMatcher, name: str, examples: int) -> None:
    others = with_example(matcher, name) or {}

    def check(value: str) -> None:
        _check_value(matcher, {name: value})
        _check_value(matcher, {**others, name: value})

    for value in _ODD_VALUES:
        check(value)
    if examples:
        _try_many(check, _hypothesis().strategies.text(max_size=20), examples)


def _check_value(matcher: IProtocolMatcher, options: Mapping[str, str]) -> None:
    try:
        matcher.predicate(options)
    except OptionError as error:
        if error.option not in {None, *(option.name for option in matcher.options)}:
            raise AssertionError(
                f"{_line(matcher, options)}: the error names an unknown option: {error}"
            ) from error
    except Exception as error:
        raise AssertionError(
            f"{_line(matcher, options)} raised {error!r}; only OptionError may be raised"
        ) from error


def _check_random(predicate: Predicate, streams: Sequence[bytes], examples: int) -> None:
    st = _hypothesis().strategies
    anything = st.binary(min_size=1, max_size=40)
    strategy = anything
    if streams:
        changed = st.builds(
            lambda data, cut, new, skip: (
                data[: cut % len(data)] + new + data[cut % len(data) + skip :]
            ),
            st.sampled_from([data[:_CHANGED] for data in streams if data]),
            st.integers(0, 1000),
            st.binary(max_size=8),
            st.integers(0, 4),
        )
        strategy = changed.filter(bool) | anything
    _try_many(lambda data: decided(predicate, data), strategy, examples)


def _hypothesis() -> Any:
    try:
        return importlib.import_module("hypothesis")
    except ImportError:
        raise ImportError(
            "check_matcher tries random bytes by hypothesis, which is not installed: install txmux[testing], "
            "or do without them by examples=0"
        ) from None


def _try_many(check: Any, strategy: Any, examples: int) -> None:
    hypothesis = _hypothesis()
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def try_one(value: Any) -> None:
        check(value)

    settings(hypothesis.given(strategy)(try_one))()


def _expect(decision: Decided, verdict: Verdict, at: int | None, data: bytes) -> None:
    if decision.verdict is not verdict:
        raise AssertionError(
            f"{decision.verdict.name} at byte {decision.at}, not {verdict.name}: {shown(data)}"
        )
    if at is not None and decision.at != at:
        raise AssertionError(
            f"{verdict.name} at byte {decision.at}, but it is due at byte {at}: {shown(data)}"
        )


@contextlib.contextmanager
def _about(line: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{line}: {error}") from error


def _line(matcher: IProtocolMatcher, options: Mapping[str, str]) -> str:
    words = (
        f"{name}={value if len(value) < 100 else value[:100] + '…'!r}"
        for name, value in options.items()
    )
    return " ".join((matcher.name, *words))
