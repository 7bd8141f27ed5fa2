"""`txmux fmt FILE`: formats rules files in a standard layout: the same rules and comments, in the same order."""

import argparse
import difflib
import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from txmux.classes import define
from txmux.errors import MuxError
from txmux.files import read_own, replace_file
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.files import SourceFile, source_of
from txmux.rules.reading.ini import COMMENT, LineKind, lines_of, read_ini, split_list
from txmux.rules.reading.parser import errors_alone
from txmux.rules.reading.scope import EVERY
from txmux.rules.reading.sections import TABLES

_INDENT = "    "
_VARIABLE = re.compile(r"\$\{")


_STANDARD_INPUT = "<stdin>"
_DIFFERENT = 1


def laid_out(text: str) -> str:
    """Lay a rules file out whose form has no errors; see `read_ini`.

    There is one blank line before each section, at most one elsewhere, the ``=`` of a section below each other, and one
    value a line where there are several, the first beside its key. Laid out again, it stays as it is.
    """
    layout = _FileLayout()
    for line in lines_of(text):
        if line.kind is LineKind.HEADER:
            layout.header(line.text)
        elif line.kind is LineKind.ENTRY:
            layout.entry(line.text, line.indent)
        elif line.kind is LineKind.ITEM:
            layout.item(line.text)
        elif line.kind is LineKind.COMMENT:
            layout.comment(line.text, line.indent)
        else:
            layout.blank()
    return "".join(f"{line}\n" for line in layout.lines())


def under_all(text: str) -> str:
    """Put each route that names no listener under all, if the file has several."""
    sections, _ = read_ini(text, "")
    kinds = [section.header.partition(" ")[0] for section in sections]
    lines = io.StringIO(text, newline=None).read().split("\n")
    for section, kind in reversed([*zip(sections, kinds, strict=True)]):
        if kind == "route" and "under" not in section.entries and kinds.count("listen") > 1:
            lines.insert(section.line, f"under = {EVERY}")
    return "\n".join(lines)


def meaning(text: str) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return what two texts have in common if they are laid out differently: headers, keys, and the values of each."""
    sections, _ = read_ini(text, "")
    return [
        (
            header := section.header,
            [
                (key, [value for item in entry.items for value in _values(header, key, item.text)])
                for key, entry in section.entries.items()
            ],
        )
        for section in sections
    ]


def _values(header: str, key: str, text: str) -> list[str]:
    """Split a line of a value, if it is a list that can be split without changing what it means."""
    section_key = TABLES.get(header.partition(" ")[0], {}).get(key)
    if section_key is None or section_key.kind.takes != "list" or _VARIABLE.search(text):
        return [text]  # the default of a variable may have commas
    parts = split_list(text)
    if not parts or any(part.startswith(COMMENT) for part in parts):
        return [text]
    return parts


@define
class _EntryLayout:
    """A key and its value."""

    key: str
    begins: bool  # on the line of its key, as the value has to if it begins like a comment
    lines: list[str]  # comments among them

    def text(self, width: int) -> Iterator[str]:
        """Yield its lines in the file; the keys of its section are padded to the width."""
        begin, below = f"{self.key:{width}} =", self.lines
        if below and (self.begins or not below[0].startswith(COMMENT)):
            begin, below = f"{begin} {below[0]}", below[1:]
        yield begin
        yield from (f"{_INDENT}{line}" for line in below)


class _FileLayout:
    """Collects the layout of a file, line by line."""

    def __init__(self) -> None:
        self._header = ""
        # Finished lines; `None` is a blank line that has to be.
        self._done: list[str | None] = []
        # What is in the section so far; blank lines are empty.
        self._parts: list[str | _EntryLayout] = []
        # Comments and blank lines that may be within a value, or after it.
        self._pending: list[str] = []
        self._entry: _EntryLayout | None = None
        self._indent = 0

    def header(self, text: str) -> None:
        self._end_entry()
        # The comments right above a header are about its section.
        above: list[str] = []
        while self._parts and isinstance(comment := self._parts[-1], str) and comment:
            self._parts.pop()
            above.insert(0, comment)
        self._end_section()
        self._header = " ".join(text[1:].partition("]")[0].split())
        self._done += [None, *above, f"[{self._header}]"]

    def entry(self, text: str, indent: int) -> None:
        self._end_entry()
        key, _, value = (part.strip() for part in text.partition("="))
        lines = _values(self._header, key, value) if value else []
        self._entry, self._indent = _EntryLayout(key, bool(lines), lines), indent
        self._parts.append(self._entry)

    def item(self, text: str) -> None:
        if self._entry is not None:
            self._keep_pending(self._entry)
            self._entry.lines += _values(self._header, self._entry.key, text)

    def comment(self, text: str, indent: int) -> None:
        if self._entry is None:
            self._parts.append(text)
            return
        self._pending.append(text)
        if indent > self._indent:
            self._keep_pending(self._entry)

    def blank(self) -> None:
        (self._parts if self._entry is None else self._pending).append("")

    def lines(self) -> Iterator[str]:
        """Yield all lines, with blank ones only where they belong."""
        self._end_entry()
        self._end_section()
        before, needs_blank = "", False
        for line in self._done:
            if not line:
                needs_blank = needs_blank or line is None or not before.startswith("[")
                continue
            if needs_blank and before:
                yield ""
            yield line
            before, needs_blank = line, False

    def _keep_pending(self, entry: _EntryLayout) -> None:
        entry.lines += filter(None, self._pending)
        self._pending.clear()

    def _end_entry(self) -> None:
        self._parts += self._pending
        self._pending.clear()
        self._entry = None

    def _end_section(self) -> None:
        width = max(
            (len(part.key) for part in self._parts if isinstance(part, _EntryLayout)), default=0
        )
        for part in self._parts:
            self._done += part.text(width) if isinstance(part, _EntryLayout) else [part]
        self._parts.clear()


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="a rules file; - is standard input, which is written to the standard output")  # fmt: skip
    parser.add_argument("--fix", action="store_true", help="also write what routes meant before they had to name their listeners: under = *")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="write nothing, but show what would change; the exit code is 1 then")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Format the files; return 1 if ``--check`` finds what would change."""
    problems: list[Problem] = []
    code = 0
    for path in arguments.files:
        try:
            changed = _lay_out(path, check=arguments.check, fix=arguments.fix)
        except RulesError as error:
            problems += error.problems
        else:
            code = _DIFFERENT if changed and arguments.check else code
    if problems:
        raise RulesError(problems)
    return code


def _lay_out(path: str, *, check: bool, fix: bool) -> bool:
    """Format a file; return whether that changes it."""
    is_input = path == "-"
    data = sys.stdin.buffer.read() if is_input else _read(path)
    source = source_of(_STANDARD_INPUT if is_input else path, data)
    problems = errors_alone(source)
    if problems:
        raise RulesError(problems)
    written = under_all(source.text) if fix else source.text
    text = laid_out(written)
    if meaning(text) != meaning(written):
        message = "cannot be formatted without changing its meaning; please report this file"
        raise RulesError([Problem(source.path, 0, "", "", message)])
    changed = text.encode() != data
    if check:
        sys.stdout.writelines(_difference(source, data.decode(), text))
    elif is_input:
        sys.stdout.write(text)
    elif changed:
        _replace(Path(path), text.encode())
    return changed


def _read(path: str) -> bytes:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            message = "is not a regular file; write - for the standard input"
            raise RulesError([Problem(path, 0, "", "", message)])
        return read_own(Path(path))
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise RulesError([Problem(path, 0, "", "", message)]) from None


def _difference(source: SourceFile, old: str, new: str) -> Iterable[str]:
    before, after = (list(io.StringIO(text, newline="\n")) for text in (old, new))
    for line in difflib.unified_diff(before, after, source.path, f"{source.path} (formatted)"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _replace(path: Path, data: bytes) -> None:
    """Replace the contents of a file atomically; its mode, owner and extended attributes stay."""
    path = path.resolve()  # a link stays one
    try:
        status = path.stat()

        def prepare(number: int) -> None:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(number, status.st_uid, status.st_gid)
            os.fchmod(number, stat.S_IMODE(status.st_mode))
            _copy_attributes(path, number)

        replace_file(path, data, prepare)
    except OSError as error:
        raise MuxError(
            f"{path} cannot be written: {error.strerror}; it is unchanged. Write to the standard output by "
            f"'txmux fmt - < {path}', or do this as its owner"
        ) from None


def _copy_attributes(path: Path, number: int) -> None:
    """Copy extended attributes, such as access lists, as far as this process may."""
    with suppress(OSError):
        for name in os.listxattr(path) if hasattr(os, "listxattr") else ():
            with suppress(OSError):
                os.setxattr(number, name, os.getxattr(path, name))
