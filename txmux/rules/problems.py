"""The errors and warnings of a rules file, with hints how to fix them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Literal

import attrs

from txmux.errors import MuxError, printable

_MOST_LIKE, _MOST_MEANT = 8, 3
_MOST_LISTED = 30
_MOST_ALIKE = 3  # lines that say the same
_MOST_NUMBERS = 10


@attrs.frozen
class Problem:
    """One thing that is wrong in a rules file, or that is probably a mistake.

    Its ``str()`` is one printable line, ``FILE:LINE: [section] key: message``, without the parts that are absent, and
    with ``warning:`` or ``note:`` behind the line if it is one.

    Attributes:
        path: The file, as the user named it.
        line: Counted from 1; 0 when the file as a whole is meant.
        section: The section's header without its brackets, or nothing.
        key: The key, or nothing.
        message: What is wrong, and what would be right.
        warning: Whether the file can be used all the same.
        note: Whether it is advice, and no mistake.
    """

    path: str
    line: int
    section: str
    key: str
    message: str
    warning: bool = False
    note: bool = False

    @property
    def severity(self) -> Literal["error", "warning", "note"]:
        if self.note:
            return "note"
        return "warning" if self.warning else "error"

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        subject = " ".join(filter(None, (self.section and f"[{self.section}]", self.key)))
        kind = "" if self.severity == "error" else self.severity
        text = ": ".join(filter(None, (place, kind, subject, self.message)))
        return printable(text)


class RulesError(MuxError):
    """A rules file that cannot be used. Its text folds problems that say the same.

    Args:
        problems: All that is wrong in the file and in those it includes, in the order of files and lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(_folded(self.problems)))


def _folded(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield a line for each problem; of many that say the same, as of one mistyped name, only for the first."""
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.path, problem.key, problem.message), []).append(problem)
    for problem in problems:
        first, *others = alike[problem.path, problem.key, problem.message]
        if len(others) < _MOST_ALIKE:
            yield str(problem)
        elif problem is first:
            numbers = ", ".join(str(other.line) for other in others[:_MOST_NUMBERS])
            more = " …" if len(others) > _MOST_NUMBERS else ""
            yield f"{problem} (the same in {len(others)} more lines: {numbers}{more})"


class InvalidValueError(MuxError):
    """A value cannot be read. It does not know the file: the reader of the file adds the position.

    Args:
        messages: What is wrong with it, and what would be right: at least one message.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages).replace("?; ", "? "))
        self.messages = messages


def nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(_all_nearest(word, known)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'ssh'?`` with the nearest known words, the commonest first in `known`; empty if none is near."""
    near = _all_nearest(word, known)[:_MOST_MEANT]
    if near[:1] == [word]:  # what is wrong is something else
        return ""
    return f"; did you mean {joined([repr(name) for name in near])}?" if near else ""


def _all_nearest(word: str, known: Iterable[str]) -> list[str]:
    word = word.casefold()
    by_folded = {name.casefold(): name for name in known}
    alike = {*get_close_matches(word, by_folded, n=_MOST_LIKE)}
    alike |= {name for name in by_folded if sorted(name) == sorted(word)}
    distances = {name: _distance(word, name) for name in by_folded if name in alike}
    # What shares letters in one order with another word, but has much to change, is another word. What several words
    # begin with, as with `admin_`, says nothing of the rest.
    distances = {
        name: distance
        for name, distance in distances.items()
        if name in word
        or name.startswith(word)
        or sorted(name) == sorted(word)
        or (
            distance < len(name)
            and 3 * distance <= len(max(word, name, key=len)) - _shared(word, name)
        )
    }
    least = min(distances.values(), default=0)
    near = [name for name, distance in distances.items() if distance == least]
    # Two letters in each other's place are a slip of the fingers; another letter may be another word.
    swapped = [name for name in near if sorted(name) == sorted(word)]
    return [by_folded[name] for name in swapped or near]


def _shared(word: str, other: str) -> int:
    """Return the length of the parts that both words begin with, each up to a ``_`` or ``-``."""
    parts = zip(*(re.split("(?<=[_-])", one) for one in (word, other)), strict=False)
    return sum(len(part) for part, _ in takewhile(lambda both: both[0] == both[1], parts))


def _distance(word: str, other: str) -> int:
    # Letters to be changed, added or left out, or swapped with the next one.
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(word, 1):
        two_before, before, row = before, row, [at]
        for place, its in enumerate(other, 1):
            costs = [before[place] + 1, row[place - 1] + 1, before[place - 1] + (letter != its)]
            if place > 1 and at > 1 and (letter, word[at - 2]) == (other[place - 2], its):
                costs.append(two_before[place - 2] + 1)
            row.append(min(costs))
    return row[-1]


def suggestion(word: str, known: Iterable[str], there_are: str = "there are") -> str:
    """Return ``; did you mean 'ssh'?`` with the nearest known word, or else ``(there are http, tls)``."""
    words = list(known)
    return did_you_mean(word, words) or listed(words, there_are)


def listed(known: Iterable[str], there_are: str = "there are") -> str:
    """Return `` (there are http, tls)``."""
    words = list(known)
    shown = [*words[:_MOST_LISTED], *(["…"] if len(words) > _MOST_LISTED else [])]
    return f" ({there_are} {', '.join(shown) or 'none'})"


def with_advice(message: str, advice: str) -> str:
    """Add advice to a message, as a sentence of its own after a question."""
    if not advice or advice in message:
        return message
    if message.endswith("?"):
        return f"{message} {advice[0].upper()}{advice[1:]}"
    return f"{message}; {advice}"


def joined(words: Sequence[str], by: str = "or") -> str:
    return f" {by} ".join(filter(None, (", ".join(words[:-1]), words[-1])))
