"""What is wrong in a rules file, told so that its writer can put it right."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import attrs

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["InvalidValueError", "Problem", "RulesError", "did_you_mean", "nearest"]


@attrs.frozen
class Problem:
    """One thing that is wrong in a rules file.

    Its ``str()`` is one printable line, ``FILE:LINE: [section] key: message``, without the parts that are absent.

    Attributes:
        path: The file, as the user named it.
        line: Counted from 1; 0 when the file as a whole is meant.
        section: The section's header without its brackets, or nothing.
        key: The key, or nothing.
        message: What is wrong, and what would be right.
    """

    path: str
    line: int
    section: str
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        subject = " ".join(filter(None, (self.section and f"[{self.section}]", self.key)))
        text = ": ".join(filter(None, (place, subject, self.message)))
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class RulesError(MuxError):
    """A rules file that cannot be used.

    Args:
        problems: All that is wrong in the file and in those it includes, in the order of files and lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class InvalidValueError(MuxError):
    """A value cannot be read. It knows nothing of files: who reads the file adds the place.

    Args:
        messages: What is wrong with it, and what would be right: at least one message.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that is nearest to another one, whatever its case."""
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that is nearest to a wrong one.

    Returns:
        ``; did you mean 'ssh'?`` to end a message with, or nothing when none is near.
    """
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""
