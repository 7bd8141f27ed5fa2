"""Which ``match =`` lines match all that another one matches, as far as that is certain.

A line is read as *cases*: a matcher with one pattern for each option, of which one is enough. A case covers another
if it matches at the same byte or earlier whenever the other does. That is certain where it has the same matcher and
no option that the other has not, each with a pattern that fits at least as many names. This works for the
built-in matchers only.
"""

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, product
from typing import Any, Generic, NamedTuple, TypeVar

from txmux.classes import frozen
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Option, Predicate
from txmux.rules.model import Alternative, Route
from txmux.rules.reading.values import split_words
from txmux.transport import normal_host

T = TypeVar("T")

HOSTS = frozenset({"host", "domain"})
"""Kinds of options whose patterns are those of hosts."""

_OPTIONS_THAT_COUNT_TOGETHER = frozenset({"payload", "regex"})
_MOST_CASES = 1000
_WILDCARD = re.compile(r"[*?]")
_NO_NAME = ""  # stands for `sni=none` and `alpn=none`; no pattern of names is empty


class PatternCase(NamedTuple):
    """A matcher with one pattern for each option that it has here, the options sorted by name."""

    name: str
    options: tuple[tuple[str, str], ...] = ()
    compared: bool = True  # with other cases; otherwise it can only be the same
    negated: bool = False


_ANY = PatternCase("any")
_SILENT = PatternCase("silent")
"""Of all times: the first route that fits a silent client has it, after its own time."""


@frozen(weakref_slot=False)
class ParsedLine:
    """A ``match =`` line, taken apart; `given` are its options as written, `cases` share them: there may be thousands."""

    alternative: Alternative
    name: str
    given: tuple[tuple[str, str], ...]
    cases: tuple[PatternCase, ...]

    @property
    def text(self) -> str:
        return self.alternative.text

    @property
    def options(self) -> dict[str, str]:
        return dict(self.given)

    @property
    def known(self) -> Mapping[str, Option]:
        return _options_of(self.name)

    @property
    def predicate(self) -> Predicate:
        return self.alternative.predicate

    @property
    def negated(self) -> bool:
        return self.alternative.negated

    def positive(self) -> tuple[PatternCase, ...]:
        return _cases(self.name, self.given, self.predicate)


_read: dict[int, ParsedLine] = {}


def read_line(alternative: Alternative) -> ParsedLine:
    """Take a line of a file apart, once until `forget_lines` is called."""
    parsed = _read.get(id(alternative))
    if parsed is None:  # which keeps the alternative, so that no other has its identity
        parsed = _read[id(alternative)] = _apart(alternative)
    return parsed


def lines_of(routes: Iterable[Route]) -> Iterator[tuple[Route, int, ParsedLine]]:
    """Yield each ``match =`` line with its route and its number there."""
    for route in routes:
        for number, alternative in enumerate(route.alternatives):
            yield route, number, read_line(alternative)


@cache
def _options_of(name: str) -> Mapping[str, Option]:
    # Whether other plugins have been installed is looked at once, not for each line.
    return {option.name: option for option in installed_matchers()[name].options}


def forget_lines() -> None:
    _read.clear()
    _options_of.cache_clear()


def _apart(alternative: Alternative) -> ParsedLine:
    name, *words = split_words(alternative.text)[alternative.negated :]
    name = sys.intern(name)
    halves = (word.partition("=") for word in words)
    given = tuple((sys.intern(option), value) for option, _, value in halves)
    if alternative.negated:
        cases: tuple[PatternCase, ...] = (
            PatternCase(name, tuple(sorted(given)), compared=False, negated=True),
        )
    else:
        cases = _cases(name, given, alternative.predicate)
    return ParsedLine(alternative, name, given, cases)


def _cases(
    name: str, given: tuple[tuple[str, str], ...], predicate: Predicate
) -> tuple[PatternCase, ...]:
    if name == _SILENT.name:
        return (_SILENT,)
    known, options = _options_of(name), given if len(given) < 2 else tuple(sorted(given))
    module = type(predicate).__module__
    own = module.startswith("txmux.matchers.") or (module.startswith("txmux.wire.") and not options)
    choices = [
        [
            pair if pattern == pair[1] else (pair[0], pattern)
            for pattern in _patterns(known[pair[0]], pair[1])
        ]
        for pair in options
    ]
    if (
        not own
        or name in _OPTIONS_THAT_COUNT_TOGETHER
        or any(known[option].widens for option, _ in options)
        or math.prod(map(len, choices)) > _MOST_CASES
    ):
        return (PatternCase(name, options, compared=False),)
    return tuple(
        PatternCase(name, options if chosen == options else chosen) for chosen in product(*choices)
    )


def _patterns(option: Option, value: str) -> Iterator[str]:
    if value.startswith("~"):
        yield value
        return
    for item in value.split(","):
        pattern = item.strip()
        if pattern == "none" and option.name in {"sni", "alpn"}:
            yield _NO_NAME
        elif option.kind not in HOSTS:
            yield pattern
        else:
            host = normal_host(pattern.removesuffix(".").removeprefix("[").removesuffix("]"))
            yield from (host[1:], f"*{host}") if host.startswith(".") else (host,)


def _wider(pattern: str) -> Iterator[str]:
    """Yield patterns that fit all names that this one fits, itself included."""
    yield pattern
    if pattern.startswith("~"):
        # After a comma may stand what is not part of the expression, as in `sni=~…,none`.
        yield from () if "," in pattern else ("*",)
        return
    if pattern == _NO_NAME:
        return
    head = _WILDCARD.split(pattern, maxsplit=1)[0]
    yield from (f"{head[:length]}*" for length in range(len(head) + 1))
    if not _WILDCARD.search(pattern.removeprefix("*.")):
        _, dot, rest = pattern.partition(".")
        while dot:
            yield f"*.{rest}"
            _, dot, rest = rest.partition(".")


class CoverageIndex(Generic[T]):
    """Finds the lines that cover a case, however many there are."""

    def __init__(self) -> None:
        self._cases: dict[PatternCase, list[T]] = {}
        self._wild: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._unless_begun_with: dict[frozenset[int], list[T]] = defaultdict(list)

    def add(self, line: ParsedLine, owner: T) -> None:
        for case in line.cases:
            if (owners := self._cases.get(case)) is None:
                self._cases[case] = [owner]  # smaller than one that has grown
            else:
                owners.append(owner)
            for option, pattern in case.options:
                if _WILDCARD.search(pattern):
                    self._wild[case.name, option].add(pattern)
        beginnings = _first_bytes(line.predicate) if line.negated else None
        if beginnings is not None:
            self._unless_begun_with[beginnings].append(owner)

    def covering(
        self, case: PatternCase, predicate: Predicate
    ) -> Iterator[tuple[PatternCase | None, list[T]]]:
        """Yield each case that covers it and the owners of the lines that have it; ``None`` for lines with ``not``."""
        for wider in self._wider_cases(case):
            if wider in self._cases:
                yield wider, self._cases[wider]
        if case.negated or case == _SILENT or not self._unless_begun_with:
            return
        beginnings = _first_bytes(predicate)
        for others, owners in self._unless_begun_with.items():
            # At a first byte that no X begins with, `not X` is certain.
            if beginnings is not None and beginnings.isdisjoint(others):
                yield None, owners

    def _wider_cases(self, case: PatternCase) -> Iterator[PatternCase]:
        if case not in {_ANY, _SILENT}:
            yield _ANY
        if not case.compared:
            yield case
            return
        choices = [
            [
                (),
                ((option, pattern),),
                *(((option, wider),) for wider in self._wider(case.name, option, pattern)),
            ]
            for option, pattern in case.options
        ]
        for chosen in product(*choices):
            yield PatternCase(case.name, tuple(chain.from_iterable(chosen)))

    def _wider(self, name: str, option: str, pattern: str) -> Iterable[str]:
        wild = self._wild.get((name, option))
        return wild.intersection(_wider(pattern)).difference((pattern,)) if wild else ()


def _first_bytes(predicate: Any) -> frozenset[int] | None:
    try:
        beginnings: frozenset[int] | None = getattr(predicate, "first_bytes", None)
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return None
    return beginnings
