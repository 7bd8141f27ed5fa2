"""The form of rules files: INI, as `configparser` reads it, with the line number of everything.

The language is that of ``configparser.RawConfigParser(delimiters=("=",), interpolation=None)`` with case-sensitive
keys and no default section. It differs in what it refuses: a line that begins with ``[`` is a header and nothing
more, where `configparser` overlooks text after the ``]``. And it reports every problem of a file, not the first.
"""

from __future__ import annotations

import io
import re

from txmux.rules.model.section import Entry, Item, Section
from txmux.rules.problems import Problem

_COMMENT = ("#", ";")
_LOOK = re.compile(r"[#;]\s*(LOOK:.*)")
"""A comment that `txmux convert` writes where a person has to decide."""


def read_ini(text: str, path: str) -> tuple[list[Section], list[Problem]]:
    """Read the form of a file, whatever its sections and keys mean.

    Two sections with the same header are both given: only who knows all included files can tell where the other is.

    Args:
        text: The file's text; a byte order mark and any kind of line end are accepted.
        path: Its name, for the problems.

    Returns:
        The sections in their order, and what is wrong in the form.
    """
    reader = _Reader(path)
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith(_COMMENT):
            reader.line(number, stripped, indent=len(line) - len(line.lstrip()))
        elif found := _LOOK.match(stripped):
            message = f"{found[1]}; see to that, then remove this line"
            reader.problems.append(Problem(path, number, "", "", message))
    return reader.sections, reader.problems


class _Reader:
    def __init__(self, path: str) -> None:
        self.sections: list[Section] = []
        self.problems: list[Problem] = []
        self._path = path
        self._header = ""
        self._entries: dict[str, Entry] | None = None
        self._unread: list[int] = []
        self._items: list[Item] | None = None
        self._indent = 0

    def line(self, number: int, line: str, indent: int) -> None:
        if self._items is not None and indent > self._indent:
            self._items.append(Item(number, line))
            return
        self._indent = indent
        if line.startswith("["):
            self._section(number, line)
        else:
            self._entry(number, line)

    def _section(self, number: int, line: str) -> None:
        header, bracket, rest = line[1:].partition("]")
        self._header = ""
        self._entries = {}
        self._unread = []
        self._items = None
        name = " ".join(header.split())
        if not (bracket and name):
            self._problem(number, "", "a header is a name between '[' and ']', as in [route ssh]")
            self._unread.append(number)
        if not name:
            return
        self._header = name
        if rest:
            self._problem(
                number, "", "nothing may follow the header's ']'; a comment needs its own line"
            )
        self.sections.append(Section(self._path, number, name, self._entries, self._unread))

    def _entry(self, number: int, line: str) -> None:
        key, equals, value = (part.strip() for part in line.partition("="))
        # Also for a line that is no entry, so that the lines that continue it are no further problems.
        self._items = []
        if not (equals and key):
            self._unread.append(number)
        if not equals:
            message = "a line needs '=', as in KEY = VALUE; to continue the value above, indent it"
            self._problem(number, "", message)
        elif not key:
            self._problem(number, "", "a key is missing before '='")
        elif self._entries is None:
            self._problem(
                number,
                key,
                "stands before the first section; put a header such as [route ssh] above it",
            )
        elif key in self._entries:
            line_before = self._entries[key].line
            message = (
                f"is already at line {line_before}; keep one, with further values indented below it"
            )
            self._problem(number, key, message)
        else:
            if value:
                self._items.append(Item(number, value))
            self._entries[key] = Entry(number, key, self._items)

    def _problem(self, number: int, key: str, message: str) -> None:
        self.problems.append(Problem(self._path, number, self._header, key, message))
