"""Checks the name and the options of a matcher, and what it makes of their values."""

import contextlib
import importlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zope.interface import Invalid
from zope.interface.verify import verifyObject

from txmux.detection.registry import transports_of
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option

_NAME = re.compile("[a-z0-9-]+")
_OPTION_NAME = re.compile("[a-z0-9_-]+")
_CHANGED = 2048
"""Longer samples are cut off here before they are changed at random, which changes their beginning only."""
_ODD_VALUES = (
    *"*?~,[\\ \0\né\u0661",
    *("", "~(", r"\x", "-1", "1e9", "0x", "a,,b", "9" * 5000, "a" * 5000),
)


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
    examples = {option.name: option.example for option in matcher.options}
    given = {name: examples[name] if value is None else value} if name else {}
    others = [other for other in examples if other != name]
    for count in range(len(others) + 1):
        for chosen in itertools.combinations(others, count):
            options = given | {other: examples[other] for other in chosen}
            with contextlib.suppress(OptionError):
                matcher.predicate(options)
                return options
    return None


def check_words(matcher: IProtocolMatcher) -> None:
    """Check that a matcher has its attributes, and that its words are words."""
    try:
        verifyObject(IProtocolMatcher, matcher)
    except Invalid as error:
        raise AssertionError(f"{matcher!r} does not provide IProtocolMatcher: {error}") from error
    if not (isinstance(matcher.name, str) and _NAME.fullmatch(matcher.name)):
        message = f"the name {matcher.name!r} must be lower-case letters, digits and '-'"
        raise AssertionError(message)
    try:
        transports_of(matcher)
    except TypeError as error:
        raise AssertionError(f"{matcher.name}: {error}") from error
    if matcher.name == "not":
        raise AssertionError("'not' cannot be a matcher's name: it inverts a match")
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


def each_example(matcher: IProtocolMatcher) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield for each option a line with its example, and the options in it; an `AssertionError` if it cannot be used."""
    for option in matcher.options:
        options = with_example(matcher, option.name)
        if options is None:
            line = line_of(matcher, {option.name: option.example})
            raise AssertionError(f"the example of {line} does not work, with no other examples")
        yield line_of(matcher, options), options


def check_values(matcher: IProtocolMatcher, name: str, examples: int | None) -> None:
    """Check that no value of an option raises anything but `OptionError`; `examples` is as for `check_matcher`."""
    others = with_example(matcher, name) or {}

    def check(value: str) -> None:
        _check_value(matcher, {name: value})
        _check_value(matcher, {**others, name: value})

    for value in _ODD_VALUES:
        check(value)
    if examples != 0:
        try_many(check, hypothesis().strategies.text(max_size=20), examples)


def _check_value(matcher: IProtocolMatcher, options: Mapping[str, str]) -> None:
    try:
        matcher.predicate(options)
    except OptionError as error:
        if error.option not in {None, *(option.name for option in matcher.options)}:
            message = f"{line_of(matcher, options)}: the error names an unknown option: {error}"
            raise AssertionError(message) from error
    except Exception as error:
        message = f"{line_of(matcher, options)} raised {error!r}; only OptionError may be raised"
        raise AssertionError(message) from error


def hypothesis() -> Any:
    """Import hypothesis; if it is not installed, the `ImportError` says what to do."""
    try:
        return importlib.import_module("hypothesis")
    except ImportError:
        raise ImportError(
            "check_matcher tries random bytes by hypothesis, which is not installed: install txmux[testing], "
            "or do without them by examples=0"
        ) from None


def changed(samples: Sequence[bytes]) -> Any:
    """Make samples with some bytes of their beginning replaced, left out, or put between them."""
    st = hypothesis().strategies
    return st.builds(
        lambda data, cut, new, skip: data[: cut % len(data)] + new + data[cut % len(data) + skip :],
        st.sampled_from([data[:_CHANGED] for data in samples]),
        st.integers(0, 2000),
        st.binary(max_size=8),
        st.integers(0, 4),
    )


def try_many(check: Any, strategy: Any, examples: int | None) -> None:
    """Call `check` with this many values of a strategy, the same ones each time; ``None`` is the number of hypothesis's profile."""
    made = hypothesis()
    settings = made.settings(
        max_examples=made.settings.default.max_examples if examples is None else examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(made.HealthCheck),
    )

    def try_one(value: Any) -> None:  # `given` needs a function
        check(value)

    settings(made.given(strategy)(try_one))()


@contextlib.contextmanager
def about(line: str) -> Iterator[None]:
    """Put the line that is checked before what is wrong with it."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{line}: {error}") from error


def line_of(matcher: IProtocolMatcher, options: Mapping[str, str]) -> str:
    """Name a matcher with options."""
    words = (
        f"{name}={value if len(value) < 100 else value[:100] + '…'!r}"
        for name, value in options.items()
    )
    return " ".join((matcher.name, *words))
