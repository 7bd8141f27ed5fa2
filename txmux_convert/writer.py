"""A rules file that is built from another program's configuration.

Validation is left to the rules parser: what it refuses becomes a comment and a warning.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from txmux.errors import MuxError, how_to_install
from txmux.interfaces import IProtocolMatcher
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.context import OUTCOME, REFUSALS
from txmux.rules.reading.parser import parse
from txmux.rules.reading.sections import TABLES

_LOOK = "# LOOK:"
_MOST_LINES = 1_000_000
"""Of one file."""

_DOLLAR = re.compile(r"\$(?=[${])")
"""A dollar sign that the rules parser would read as a variable or an escape."""
_HINT = re.compile(r"; (remove it|did you mean .*|keep one.*)$")
_NARROWING = frozenset({"under", "from", "not_from", "allow", "deny"})
"""A section that loses one of these keys would serve more clients."""


def _keys_with(shape: str) -> frozenset[str]:
    """Return the keys in whose values there is such a thing."""
    rows = (row for keys in TABLES.values() for row in keys.items())
    return frozenset(name for name, key in rows if shape in key.kind.shape.casefold())


_OF_NETWORKS, _OUTCOMES = map(_keys_with, ("networks", OUTCOME.shape))
_FILE = re.compile(r"@[^\s,]+")


class ConvertError(MuxError):
    """A configuration cannot be converted."""


def import_package(module: str, what: str, package: str = "") -> Any:
    """Import a module of an optional package, which reading a kind of file needs."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ConvertError(
            f"{what} needs the package {package or module}; install it: {how_to_install('convert')}"
        ) from None


@contextmanager
def acting_as(author: int) -> Iterator[None]:
    """Have the kernel answer as it would a user, by number, also where this process is root."""
    if os.geteuid() != 0 or author == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        user = pwd.getpwuid(author)
        theirs = user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        theirs = author, []
    try:
        os.setgroups(theirs[1])
        os.setegid(theirs[0])
        os.seteuid(author)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would have us wait


def read_named(file: Path, draft: Draft, limit: int = -1) -> bytes:
    """Read a file that a configuration names, whose lines may be shown, with the rights of the configuration's author.

    Raises:
        OSError: It cannot be read, or may not.
    """
    try:
        with acting_as(draft.author), open(file, "rb", opener=_opened) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(file))
            return opened.read(limit)
    except PermissionError as error:
        if draft.author and os.geteuid() == 0:
            error.strerror = f"the owner of {draft.path!r} may not read it"
        raise


def shown(text: str) -> str:
    """Make a text printable; each of its characters stands for one byte of a file."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@attrs.frozen
class ConfigLine:
    """The words of a line, or of a directive, and its number as `Draft` counts lines."""

    words: tuple[str, ...]
    number: int

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def value(self) -> str:
        return self.words[1] if len(self.words) > 1 else ""

    def begins(self, *words: str) -> bool:
        return self.words[: len(words)] == words

    def __str__(self) -> str:
        return " ".join(self.words)


Origin = int | ConfigLine
"""The line that something comes from; 0 for none."""

Report = Callable[[Origin, str], None]


def _number(origin: Origin) -> int:
    return origin if isinstance(origin, int) else origin.number


@attrs.frozen
class DraftLine:
    """One line of a value, and the line that it comes from."""

    text: str
    line: int


@attrs.define
class DraftSection:
    """A section of the rules file.

    Attributes:
        header: The text between the brackets.
        dropped: Whether it is written as a comment.
    """

    header: str
    line: int
    draft: Draft = attrs.field(eq=False, repr=False)
    entries: dict[str, list[DraftLine]] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)
    dropped: bool = False

    @property
    def name(self) -> str:
        return self.header.partition(" ")[2]

    def add(self, key: str, text: str, origin: Origin = 0) -> None:
        line = DraftLine(shown(text), _number(origin) or self.line)
        self.entries.setdefault(key, []).append(line)

    def add_default(self, key: str, text: str, origin: Origin = 0) -> bool:
        """Add a key if the section lacks it; return whether it was added."""
        if key in self.entries:
            return False
        self.add(key, text, origin)
        return True

    def add_set(self, origin: Origin = 0, /, **texts: str) -> None:
        """Add each key whose text is not empty."""
        for key, text in texts.items():
            self.add_each(key, [text] * bool(text), origin)

    def add_each(self, key: str, texts: Iterable[str], origin: Origin = 0) -> None:
        for text in texts:
            self.add(key, text, origin)

    def add_path(self, key: str, path: str, origin: Origin = 0) -> None:
        """Write a path so that it means the same in a rules file, wherever that is."""
        folder = os.path.abspath(os.path.dirname(self.draft.path))  # noqa: PTH100, PTH120 - not resolved
        self.add(key, os.path.join(folder, path), origin)  # noqa: PTH118 - not resolved

    def warn(self, origin: Origin, message: str) -> None:
        self.draft.warn(origin, message, self)

    def flag(self, origin: Origin, message: str) -> None:
        self.draft.flag(origin, message, self)


_Source = tuple[DraftSection, str, DraftLine | None]


class Draft:
    """A rules file that is being made.

    Attributes:
        path: The configuration that it is made of.
        author: The user who has written that, by number: it shows nothing that is closed to them.
    """

    def __init__(
        self, path: str, matchers: Mapping[str, IProtocolMatcher], author: int = 0
    ) -> None:
        self.path = path
        self.author = author
        self.matchers = matchers
        self._files = [path]
        self._warnings: set[tuple[int, str]] = set()
        self._aside: dict[str, int] = {}
        self.notes: list[str] = []
        self._line_of: dict[str, int] = {}  # by the note
        self.has_looks = False
        self._sections: list[DraftSection] = []
        self._headers: set[str] = set()
        self._numbers: defaultdict[tuple[str, str], int] = defaultdict(lambda: 1)
        """The last number that was appended to each name."""
        self._users: dict[str, list[tuple[DraftSection, str]]] = {}  # the keys that name a backend

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is lost or different: first what the user has to decide, then by line."""
        warnings = sorted(
            self._warnings, key=lambda warning: (not warning[1].startswith("LOOK: "), warning)
        )
        warnings += [(min(self._aside.values()), self._left_aside())] if self._aside else []
        return tuple(
            f"{self._path_of(line)}:{line % _MOST_LINES}: {message}" for line, message in warnings
        )

    def set_aside(self, origin: Origin, name: str, hint: str = "") -> None:
        """Report settings of the process or its log, all together in one line."""
        self._aside.setdefault(f"{name} ({hint})" if hint else name, _number(origin))

    def _left_aside(self) -> str:
        return shown(f"left out: {', '.join(self._aside)}; see 'Run as a service'")

    def line_in(self, file: str, line: int) -> int:
        """Return the number that stands for a line of an included file."""
        if file not in self._files:
            self._files.append(file)
        return self._files.index(file) * _MOST_LINES + line

    def where(self, line: int) -> str:
        file = f"{self._path_of(line)} " if line >= _MOST_LINES else ""
        return f"{file}line {line % _MOST_LINES}"

    def _path_of(self, line: int) -> str:
        return self._files[line // _MOST_LINES]

    def section(self, kind: str, name: str = "", line: Origin = 0) -> DraftSection:
        """Begin a section; a name that is taken or reserved gets a number."""
        if kind == "txmux":
            header = kind
        else:
            stem = re.sub("[^A-Za-z0-9._-]+", "-", name) or kind
            header = f"{kind} {stem}"
            while header in self._headers or (stem in REFUSALS and header.endswith(stem)):
                self._numbers[kind, stem] += 1
                header = f"{kind} {stem}-{self._numbers[kind, stem]}"
        self._headers.add(header)
        section = DraftSection(header, _number(line), self)
        self._sections.append(section)
        return section

    def warn(self, origin: Origin, message: str, section: DraftSection | None = None) -> None:
        """Report what is lost or different, once, in a comment and in a warning."""
        self._report(origin, message, section)

    def flag(self, origin: Origin, message: str, section: DraftSection | None = None) -> None:
        """Report what the user has to decide; until then the rules file is in error.

        For all that changes which clients are served, and by which server.
        """
        self.has_looks = True
        self._report(origin, message, section, "LOOK: ")

    def _report(
        self, origin: Origin, message: str, section: DraftSection | None, mark: str = ""
    ) -> None:
        line = _number(origin)
        message = shown(message if isinstance(origin, int) else f"{origin}: {message}")
        if (line, mark + message) not in self._warnings:
            self._warnings.add((line, mark + message))
            notes = section.notes if section else self.notes
            note = f"{mark}{self.where(line)}: {message}"
            self._line_of[note] = line
            notes.append(note)

    def _sorted(self, notes: Iterable[str]) -> list[str]:
        last = len(self._files) * _MOST_LINES
        return sorted(notes, key=lambda n: (n[:6] != "LOOK: ", self._line_of.get(n, last)))

    def finish(self) -> str:
        """Return the text; what the parser refuses becomes a comment.

        Raises:
            ConvertError: No listener is left.
        """
        self._name_listeners()
        while True:
            lines = list(self._lines())
            text = "".join(f"{line}\n" for line, _ in lines)
            # Without its LOOK comments, which are errors until the user has decided.
            plain = "".join(f"{_plain(line, source)}\n" for line, source in lines)
            try:
                parse(plain, self.path, self.matchers)
            except RulesError as error:
                self._drop(error.problems, [source for _, source in lines])
            else:
                return text

    def _name_listeners(self) -> None:
        """With several listeners, a route that names none is for all."""
        kinds = [section.header.partition(" ")[0] for section in self._sections]
        for section, kind in zip(self._sections, kinds, strict=True):
            if kind == "route" and kinds.count("listen") > 1 and "under" not in section.entries:
                section.entries = {"under": [DraftLine("*", section.line)], **section.entries}

    def _drop(self, problems: Iterable[Problem], sources: list[_Source | None]) -> None:
        left = [s for s in self._sections if s.header.startswith("listen ") and not s.dropped]
        numbered = dict(enumerate(sources, 1))
        refused = [(source, p) for p in problems if (source := numbered.get(p.line))]
        if not left or not refused:
            looks = [
                f"; {self.where(line)}: {message.removeprefix('LOOK: ')}"
                for line, message in sorted(self._warnings)
                if re.match(
                    r"LOOK: (accept|bind |endpoint = |entryPoint|listen|server: |\[(?!listen ).* is left out)",
                    message,
                )
            ]
            raise ConvertError(
                f"{self.path}: nothing in it can be converted: there is no listener that txmux could have"
                + "".join(looks[:3])
            )
        self._users = defaultdict(list)
        for section in self._sections:
            for key in _OUTCOMES & section.entries.keys():
                for line in section.entries[key]:
                    self._users[line.text.partition(" ")[0]].append((section, key))
        # One key of a section at a time: errors of its other keys may follow from it.
        keys: dict[str, str] = {}
        for (section, key, item), problem in refused:
            if item is None:
                self._leave_out(section, problem.key)
            elif not section.dropped and keys.setdefault(section.header, key) == key:
                self._take_out(section, key, item, self._with_positions(problem.message, numbered))

    def _with_positions(self, message: str, numbered: Mapping[int, _Source | None]) -> str:
        """Replace line numbers of the rules by those of the configuration."""

        def position(found: re.Match[str]) -> str:
            source = numbered.get(int(found[1]))
            return f" at {self.where(source[2].line)}" if source and source[2] else found[0]

        return re.sub(rf" at {re.escape(self.path)}:(\d+)", position, message)

    def _take_out(self, section: DraftSection, key: str, item: DraftLine, why: str) -> None:
        entry = section.entries.get(key, [])
        if item not in entry:
            return  # it had two problems, or its backend is gone
        entry.remove(item)
        self.flag(item.line, f"{key} = {item.text}: {_HINT.sub('', why)}", section)
        if not entry:
            del section.entries[key]
            if key in _NARROWING:
                section.dropped = True
                message = f"[{section.header}] is left out: it would serve more clients"
                self.flag(section.line, message)

    def _leave_out(self, section: DraftSection, missing: str) -> None:
        section.dropped = True
        message = f"[{section.header}] is left out: it has no {missing}"
        if section.header.startswith("backend "):
            message += "; its clients are closed"
            self._close_clients_of(section.name)
        else:
            self._leave_out_routes_of(section.name)
        self.flag(section.line, message, section)

    def _leave_out_routes_of(self, name: str) -> None:
        for section in self._sections:
            under = section.entries.get("under", ())
            if not section.dropped and any(item.text == name for item in under):
                section.dropped = True
                self._leave_out_routes_of(section.name)

    def _close_clients_of(self, backend: str) -> None:
        """Close the clients of a backend that is left out: they may not reach another one."""
        for section, key in self._users.get(backend, ()):
            entry = section.entries.get(key, [])
            for number, item in enumerate(entry):
                # Words behind the name say which silent clients.
                name, blank, words = item.text.partition(" ")
                if name == backend:
                    entry[number] = attrs.evolve(item, text=f"close{blank}{words}")

    def _lines(self) -> Iterator[tuple[str, _Source | None]]:
        notes = [*self._sorted(self.notes), *[self._left_aside()] * bool(self._aside)]
        yield from ((f"# {note}", None) for note in notes)
        kinds = [*TABLES]
        order = sorted(self._sections, key=lambda s: kinds.index(s.header.partition(" ")[0]))
        for number, section in enumerate(order):
            if number or notes:
                yield "", None
            mark = "# " if section.dropped else ""
            source = None if section.dropped else section
            yield f"{mark}[{section.header}]", (source, "", None) if source else None
            yield from ((f"# {note}", None) for note in self._sorted(section.notes))
            for key, items in section.entries.items():
                for n, item in enumerate(items):
                    value = _DOLLAR.sub("$$", item.text)
                    text = f"{key} = {value}" if not n else f"    {value}"
                    yield mark + text, (source, key, item) if source else None


def _plain(line: str, source: _Source | None) -> str:
    """Return a line without LOOK comments and without files, which need not be on this machine."""
    if line.startswith(_LOOK):
        return "#"
    return _FILE.sub("192.0.2.1", line) if source and source[1] in _OF_NETWORKS else line
