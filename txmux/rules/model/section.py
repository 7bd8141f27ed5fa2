"""The form of a rules file: sections, keys and values, and where they stand.

What stands below the header counts its lines from there, so that thousands of sections share the same keys with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from txmux.classes import frozen
from txmux.rules.problems import Problem

NOTHING_MORE: Mapping[str, Any] = {}
"""Stands for no keys of features; it must not be changed."""


@frozen(weakref_slot=False)
class ValueLine:
    """One line of a value, without the blanks around it."""

    below: int
    text: str


@frozen(weakref_slot=False)
class KeyEntry:
    """A key and its value; blank lines and comments inside the value are left out, and so is the key where it is repeated."""

    below: int
    key: str
    items: Sequence[ValueLine]
    repeated_at: int = 0


@frozen
class Section:
    """A section.

    Attributes:
        path: The file, as the user named it.
        unread: The lines of it that could not be read, so that what seems to be missing may stand there.
    """

    path: str
    line: int
    header: str
    entries: Mapping[str, KeyEntry]
    unread: Sequence[int] = ()

    def items(self, key: str) -> Sequence[ValueLine]:
        entry = self.entries.get(key)
        return entry.items if entry else ()

    def line_of(self, where: KeyEntry | ValueLine) -> int:
        return self.line + where.below

    def problem(
        self, message: str, key: str = "", number: int | None = None, *, line: int = 0
    ) -> Problem:
        """Make a problem of this section, of a key, of a line of its value by number from 0, or of another line."""
        if not line:
            entry = self.entries.get(key)
            where = entry.items[number] if entry and number is not None else entry
            line = self.line_of(where) if where else self.line
        return Problem(self.path, line, self.header, key, message)


NOWHERE = Section("", 0, "", {})
"""Stands for the section of what was made in Python."""
