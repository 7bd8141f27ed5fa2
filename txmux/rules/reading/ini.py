"""The form of rules files: INI, as `configparser` reads it, with the line number of everything.

The language is that of ``configparser.RawConfigParser(delimiters=("=",), interpolation=None)`` with case-sensitive
keys and no default section. It differs in what it refuses: a line that begins with ``[`` is a header and nothing
more, where `configparser` overlooks text after the ``]``; and a colon behind a key is taken for that of YAML, where
`configparser` makes it part of the key. And it reports every problem of a file, not the first.
"""

import io
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import starmap
from types import MappingProxyType
from typing import NamedTuple

import attrs

from txmux.classes import define
from txmux.rules.model.section import KeyEntry, Section, ValueLine
from txmux.rules.problems import Problem

COMMENT = ("#", ";")
"""What comments begin with."""


class LineKind(Enum):
    """What a line is."""

    BLANK = "blank"
    COMMENT = "comment"
    HEADER = "header"
    ENTRY = "entry"  # or at least a line where one could begin
    ITEM = "item"  # continues the value of the entry above


class FileLine(NamedTuple):
    """A line of a rules file, without the blanks around it."""

    number: int
    kind: LineKind
    text: str
    indent: int


def lines_of(text: str, first: int = 1) -> Iterator[FileLine]:
    """Yield all lines, also blank ones, comments and wrong ones; a byte order mark and any line ends are accepted."""
    in_value, indent_of_key = False, 0
    lines = io.StringIO(text.removeprefix("\ufeff"), newline=None)
    for number, line in enumerate(lines, start=first):
        stripped = line.strip()
        if not stripped:
            yield FileLine(number, LineKind.BLANK, "", 0)
            continue
        indent = len(line) - len(line.lstrip())
        if stripped.startswith(COMMENT):
            yield FileLine(number, LineKind.COMMENT, stripped, indent)
        elif in_value and indent > indent_of_key:
            yield FileLine(number, LineKind.ITEM, stripped, indent)
        else:
            in_value, indent_of_key = not stripped.startswith("["), indent
            kind = LineKind.ENTRY if in_value else LineKind.HEADER
            yield FileLine(number, kind, stripped, indent)


def parts_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the parts of a text that can be read apart, each with the number of its first line: all but the first begin with a header.

    No header at the begin of a line depends on what is above it.
    """
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    first, *others = text.split("\n[")
    yield 1, first
    line = first.count("\n") + 2
    for other in others:
        yield line, f"[{other}"
        line += other.count("\n") + 1


LIKE_COMMENT = re.compile(r"\s(?:[#;]|//)")
"""What seems to be a comment behind a value."""
QUOTES = re.compile("[\u2018-\u201f\u00ab\u00bb]")
"""Quotes as word processors set them."""


def split_list(text: str) -> list[str]:
    """Split a line of a list at its commas; what seems to be a comment may have commas, too."""
    comment = LIKE_COMMENT.search(text)
    end = comment.start() if comment else len(text)
    parts = text[:end].split(",")
    parts[-1] += text[end:]
    return [part.strip() for part in parts if part.strip()]


_LOOK = re.compile(r"[#;]\s*(LOOK:.*)")
"""A comment that `txmux convert` writes where a person has to decide."""


def read_ini(
    text: str,
    path: str,
    keys: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    first: int = 1,
    shared: dict[object, KeyEntry] | None = None,
) -> tuple[list[Section], list[Problem]]:
    """Read the form of a file, whatever its sections and keys mean.

    `keys` have by the kind of section the words that are keys there, each with an example, for messages. `first` is the
    number of the first line. What is in `shared` is not made again.

    Two sections with the same header are both returned: only the caller, which knows all included files, can say where the other is.
    """
    reader = _IniReader(path, keys, {} if shared is None else shared)
    for line in lines_of(text, first):
        if line.kind is LineKind.HEADER:
            reader.header(line.number, line.text)
        elif line.kind is LineKind.ENTRY:
            reader.entry(line.number, line.text)
        elif line.kind is LineKind.ITEM:
            reader.item(line.number, line.text)
        elif match := _LOOK.match(line.text):
            message = f"{match[1]}; fix that, then remove this line"
            reader.problems.append(Problem(path, line.number, "", "", message))
    reader.finish()
    return reader.sections, reader.problems


@define
class _Entry:
    """A key as far as it has been read."""

    below: int
    items: list[tuple[int, str]] = attrs.field(factory=list)
    repeated_at: int = 0
    is_read: bool = False


class _IniReader:
    def __init__(
        self, path: str, keys: Mapping[str, Mapping[str, str]], shared: dict[object, KeyEntry]
    ) -> None:
        self._keys = keys
        self._shared = shared
        self.sections: list[Section] = []
        self.problems: list[Problem] = []
        self._path = path
        self._header = ""
        self._entries: dict[str, _Entry] | None = None
        self._unread: list[int] = []
        self._items: list[tuple[int, str]] = []
        self._line = 0
        self._key = ""  # whose lines are being read

    def item(self, number: int, line: str) -> None:
        if line.startswith("//"):
            self._problem(number, self._key, "a comment begins with '#'")
            return
        self._items.append((number - self._line, line))

    def header(self, number: int, line: str) -> None:
        self.finish()
        header, bracket, rest = line.lstrip("[").partition("]")
        self._header = ""
        self._line = number
        self._entries = {}
        self._unread = []
        name = " ".join(header.split())
        if not (bracket and name):
            self._problem(number, "", "a header is a name between '[' and ']', as in [route ssh]")
            self._unread.append(number)
        self._header = name
        if name and line.startswith("[[") and not rest.strip("]"):
            self._problem(number, "", "a header has one pair of brackets")
        elif name and rest:
            message = "nothing may follow the header's ']'; a comment needs its own line"
            self._problem(number, "", message)

    def finish(self) -> None:
        """Keep the section that has been read, in as little memory as it takes: there may be thousands."""
        if self._header and self._entries is not None:
            written = self._entries.items()
            entries = {
                key: self._entry(key, its) for key, its in written if its.is_read or its.items
            }
            unread = tuple(self._unread)
            self.sections.append(Section(self._path, self._line, self._header, entries, unread))
        self._entries, self._key = None, ""

    def _entry(self, key: str, written: "_Entry") -> KeyEntry:
        parts = (written.below, key, written.repeated_at, *written.items)
        entry = self._shared.get(parts)
        if entry is None:
            items = tuple(starmap(ValueLine, written.items))
            entry = KeyEntry(written.below, sys.intern(key), items, written.repeated_at)
            self._shared[parts] = entry
        return entry

    def entry(self, number: int, line: str) -> None:
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        # Also for a line that is not an entry, so that the lines that continue it are not reported as further problems.
        self._items, self._key = [], ""
        is_unread = not (equals and key)
        if is_unread or " " in key or ":" in key or line.startswith(("/", "-")):
            from txmux.rules.advice import keys  # noqa: PLC0415 - only for errors

            meant = keys.line(line, self._header, self._keys)
            is_unread = is_unread or meant is not None
            if meant is not None:
                key, value, message = meant
            elif equals:
                message = "" if key else "a key is missing before '='"
            else:
                message = (
                    "a line needs '=', as in KEY = VALUE; to continue the value above, indent it"
                )
                key = ""
            if message:
                self._problem(number, "", message)
        if is_unread:
            self._unread.append(number)
        elif self._entries is None:
            kind = next((kind for kind, words in self._keys.items() if key in words), "")
            header = {"txmux": "[txmux]", "": "[route ssh]"}.get(kind, f"[{kind} NAME]")
            message = f"comes before the first section; put a header such as {header} above it"
            self._problem(number, key, message)
        if self._entries is not None and key:
            # A key that takes several values may be repeated.
            below = number - self._line
            written = self._entries.setdefault(key, _Entry(below))
            if below != written.below:
                written.repeated_at = written.repeated_at or below
            written.is_read = written.is_read or not is_unread
            self._items, self._key = written.items, key
            if value:
                self._items.append((below, value))

    def _problem(self, number: int, key: str, message: str) -> None:
        self.problems.append(Problem(self._path, number, self._header, key, message))
