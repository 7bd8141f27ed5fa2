"""The errors and warnings of a rules file, with hints how to fix them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError, listed, printable
from txmux.rules.advice.words import did_you_mean

_MOST_ALIKE = 3  # lines that say the same
_MOST_NUMBERS = 10
_LONGEST_NAME, _LONGEST_MESSAGE = 1_100, 8_000  # characters: others may have written a MiB of it


def _tuple(claimant: Sequence[Any]) -> tuple[str, int] | tuple[()]:
    return tuple(claimant)  # which is a list in JSON


@frozen
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
        claimant: The file and line of the section to which the name or the address belongs, if that is what is wrong.
    """

    path: str
    line: int
    section: str
    key: str
    message: str
    warning: bool = False
    note: bool = False
    claimant: tuple[str, int] | tuple[()] = attrs.field(default=(), converter=_tuple)

    def lost_to(self, path: str, line: int) -> "Problem":
        """Return the same problem of a name or an address that belongs to another section."""
        return attrs.evolve(self, claimant=(path, line))

    @property
    def severity(self) -> Literal["error", "warning", "note"]:
        if self.note:
            return "note"
        return "warning" if self.warning else "error"

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        section, key = (printable(name, _LONGEST_NAME) for name in (self.section, self.key))
        message = printable(self.message, _LONGEST_MESSAGE)
        subject = " ".join(filter(None, (section and f"[{section}]", key)))
        kind = "" if self.severity == "error" else self.severity
        return printable(": ".join(filter(None, (place, kind, subject, message))))


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
        same = alike[problem.path, problem.key, problem.message]
        others = len(same) - 1
        if others < _MOST_ALIKE:
            yield str(problem)
        elif problem is same[0]:
            numbers = ", ".join(str(other.line) for other in same[1 : 1 + _MOST_NUMBERS])
            more = " …" if others > _MOST_NUMBERS else ""
            yield f"{problem} (the same in {others} more lines: {numbers}{more})"


class InvalidValueError(MuxError):
    """A value cannot be read. It does not know the file: the reader of the file adds the position.

    Args:
        messages: What is wrong with it, and what would be right: at least one message.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__(*messages)
        self._advisers: list[tuple[Callable[..., Sequence[str]], Sequence[object]]] = []

    def ask(self, adviser: Callable[..., Sequence[str]], *facts: object) -> Self:
        """Let a function of `txmux.rules.advice` improve the messages when they are first read."""
        self._advisers.append((adviser, facts))
        return self

    @property
    def messages(self) -> tuple[str, ...]:
        while self._advisers:
            adviser, facts = self._advisers.pop(0)
            self.args = tuple(adviser(self.args, *facts))
        return self.args

    def __str__(self) -> str:
        return "; ".join(self.messages).replace("?; ", "? ")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'ssh'?`` with the nearest known word, or else ``(there are http, tls)``."""
    words = list(known)
    return did_you_mean(word, words) or listed(words)
