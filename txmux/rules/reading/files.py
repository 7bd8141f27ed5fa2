"""The files that rules are read from, and the variables of the environment in them."""

import codecs
import errno
import glob
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from txmux.classes import frozen
from txmux.files import (
    LARGEST_LIST,
    groups_of,
    has_helper,
    mode_lets,
    on_disk,
    other_path,
    read_bytes,
    read_with_owner,
    safe_status,
    status_of,
    without_links,
)
from txmux.rules.model import Files, Section
from txmux.rules.model.section import NOTHING_MORE, ValueLine
from txmux.rules.problems import InvalidValueError, Problem

LARGEST_RULES = 16 << 20
"""The most bytes of a rules file with all that it includes."""
_AS_OF_PART = " [unit "
"""In the path of a file, this would make it a part of another one, with what is allowed to that."""
LARGEST_OF_OTHERS = 1 << 20
"""The same of all files of a user who is neither root nor the operator, for whose rules everybody waits: the slowest take seconds."""


@frozen
class SourceFile:
    """A file that was read.

    Attributes:
        path: As the user named it, or as it is beside the file that includes it.
        problems: The lines that are not UTF-8; in the text they are replaced.
        author: The user whose file it was, if it was read here.
    """

    path: str
    text: str
    problems: tuple[Problem, ...] = ()
    author: int | None = None


def main_of(texts: Mapping[str, str]) -> SourceFile:
    return SourceFile(*next(iter(texts.items())))


def read_source(path: Path | str, room: int = LARGEST_RULES) -> SourceFile:
    """Read a rules file, of which `room` is left for it by those that were read before."""
    try:
        data, author = read_with_owner(Path(path), room)
        return attrs.evolve(source_of(path, data), author=author)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        why = f"rules may have {LARGEST_RULES >> 20} MiB in all; is it the right file?"
        raise OSError(error.errno, why, str(path)) from None


def source_of(path: Path | str, data: bytes) -> SourceFile:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return SourceFile(
            str(path), "", (Problem(str(path), 1, "", "", "is UTF-16; save the file as UTF-8"),)
        )
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        message = "is not text: it has NUL bytes; save the file as UTF-8"
        return SourceFile(str(path), "", (Problem(str(path), line, "", "", message),))
    try:
        return SourceFile(str(path), data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        problems = tuple(
            Problem(str(path), number, "", "", "is not UTF-8; save the file in that encoding")
            for number, line in enumerate(data.splitlines(), start=1)
            if not _is_utf8(line)
        )
        return SourceFile(str(path), data.decode("utf-8-sig", "replace"), problems)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")


def real_path(path: Path) -> Path:
    with on_disk(path):
        return Path(without_links(path))


def included_paths(folder: Path, pattern: str) -> list[Path]:
    """Return the files that one item of ``include =`` means now, sorted; without wildcards, the file may be missing."""
    if not is_pattern(pattern):
        return [folder / pattern]
    with on_disk(folder / pattern):
        # Path.glob() takes no absolute patterns, and finds the hidden files that editors leave.
        names = sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207
        paths = [
            folder / name
            for name in names
            if _AS_OF_PART not in name and not os.path.isdir(folder / name)  # noqa: PTH112 - never raises
        ]
    return _without_links_to_others(paths)


def unread_among(folder: Path, pattern: str) -> list[tuple[str, str]]:
    """Return what a pattern for the names of files finds and nothing reads, each with what it is; one for all names may mean only the files that are no folders."""
    if not is_pattern(pattern):
        return []
    finds_all = not os.path.basename(pattern).strip("*")  # noqa: PTH119
    found = []
    with on_disk(folder / pattern):
        for name in sorted(glob.glob(pattern, root_dir=folder)):  # noqa: PTH207 - as above
            if os.path.isdir(folder / name):  # noqa: PTH112 - as above
                found += [(name, "is a folder")] * (not finds_all)
            elif _AS_OF_PART in name:
                found.append((name, "is called like a part of another file"))
    return found


def unlisted(folder: Path, pattern: str) -> dict[Path, OSError]:
    """Return why folders cannot be listed in which a pattern may mean files, each by its path with the rest of the pattern.

    `glob` passes over them. What is missing may be there later.
    """
    head, tail = os.path.split(pattern)
    found: dict[Path, OSError] = {}
    with on_disk(folder / pattern):
        heads = [head]
        if is_pattern(head):
            found = {path / tail: error for path, error in unlisted(folder, head).items()}
            heads = glob.glob(head, root_dir=folder)  # noqa: PTH207 - as above
        for one in heads:
            place = folder / one
            try:
                if is_pattern(tail):
                    os.scandir(place).close()
                else:
                    (place / tail).lstat()
            except FileNotFoundError:
                continue
            except OSError as error:
                # What a pattern finds may be no folder.
                if not (is_pattern(head) and error.errno in {errno.ENOTDIR, errno.ELOOP}):
                    error.filename = str(place)
                    found[place / tail] = error
    return found


def with_unlisted(paths: list[Path], closed: Iterable[Path]) -> list[Path]:
    """Add what stands for the files of folders that cannot be listed, unless some of them are known, which say so."""
    more = {*closed} - {*paths}
    known = {path.parent for path in paths}
    more = {path for path in more if path.parent not in known}
    return sorted([*paths, *more], key=str) if more else paths


def with_unseen(
    found: list[Path], before: Iterable[Path], kept: Collection[Path] = ()
) -> list[Path]:
    """Add the files of before that are not found, and not known to be gone: their folder may be closed to this process; or are to be `kept`."""
    listed = {*found}
    unseen = [path for path in before if path not in listed and (path in kept or not is_gone(path))]
    return _without_links_to_others(sorted([*found, *unseen], key=str)) if unseen else found


def is_gone(path: Path) -> bool:
    try:
        with on_disk(path):
            path.lstat()
    except OSError as problem:  # no other one says so
        return isinstance(problem, FileNotFoundError | NotADirectoryError)
    return False


def _without_links_to_others(paths: list[Path]) -> list[Path]:
    """Leave out links to others of these files: what is in a file is its owner's, not that of who makes a link to it."""
    links = set[Path]()
    for path in paths:
        with suppress(PermissionError), on_disk(path):  # as above
            links |= {path} if path.is_symlink() else set()
    if not links:
        return paths
    targets = {path: real_path(path) for path in paths}
    others = {targets[path] for path in paths if path not in links}
    return [path for path in paths if path not in links or targets[path] not in others]


def smallest_first(paths: Iterable[Path]) -> list[Path]:
    """Sort files so that a large one takes no room from the others that a pattern finds."""

    def size(path: Path) -> int:
        with suppress(OSError), on_disk(path):  # reading it reports that
            return path.stat().st_size
        return 0

    return sorted(paths, key=size)


def check_file(path: Path, what: str = "the path of a PEM file") -> None:
    """Refuse a missing file; whether it can be used shows when it is opened. `what` is for messages."""
    try:
        with on_disk(path):
            is_folder = stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return  # the caller may have fewer rights than the service
    except OSError as error:
        # Where its disk does not answer, `other_path` would wait for it, too.
        advice = "" if isinstance(error, TimeoutError) else f"; {other_path(path)}"
        raise InvalidValueError(f"cannot read '{path}': {error.strerror}{advice}") from None
    if is_folder:
        raise InvalidValueError(f"'{path}' is a folder; write {what}")


def version_of(path: Path) -> str:
    """Return a text that changes with a file, and is the same for each process that sees it, also for one in ``/proc/self``."""
    with on_disk(path):
        status = safe_status(path)
    return f"{status.st_size} {status.st_ctime_ns if status.st_size else 0}"


_NOT_SENT = "it is not among the files that were sent"


class FileRights:
    """What the authors of rules may name. It looks once at each folder and at each user's groups, which a machine of the network may know."""

    def __init__(self) -> None:
        self._groups: dict[int, Collection[int]] = {}
        self._closed: dict[tuple[Path, int], Path | None] = {}

    def why_not(
        self, path: Path, author: int | None, file: Path, operator: Path, bit: int = os.R_OK
    ) -> str:
        """Return why rules in a file may not name another one; nothing if they may: what root and the operator have written may name all, others what they may read, or use in another way of `os.access`.

        Otherwise, the author of an included file would have txmux read what is closed to them. Whose file it is now says nothing of what is in force for it.
        """
        use = "read" if bit == os.R_OK else "write to"
        try:
            with on_disk(path):
                who = status_of(file).st_uid if author is None else author
                is_trusted = who in {0, status_of(operator).st_uid}
                closed = None if is_trusted else self._closed_to(path, who, bit)
                if closed is not None and bit == os.R_OK:
                    with suppress(PermissionError):
                        safe_status(path)  # what is not read is closed to nobody
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return ""  # others report what is missing
            why = error.strerror
            if isinstance(error, PermissionError):
                why = f"user {os.geteuid()} may not look there"
            return f"whether the owner of {str(file)!r} may {use} {str(path)!r} is not known: {why}"
        if closed is None:
            return ""
        let = f"{use} it" if closed == path else f"enter {str(closed)!r}"
        return f"the owner of {str(file)!r} may not {use} {str(path)!r}; let user {who} {let}, or name another one"

    def _closed_to(self, path: Path, who: int, bit: int) -> Path | None:
        """Return what keeps a user from a file: itself, or a folder on the way, also on that by links."""
        if not self._lets(status_of(path), who, bit):
            return path
        for folder in (path.absolute().parent, Path(os.path.realpath(path)).parent):
            if (folder, who) not in self._closed:
                self._closed[folder, who] = self._closed_folder(folder, who)
            if closed := self._closed[folder, who]:
                return closed
        return None

    def _closed_folder(self, folder: Path, who: int) -> Path | None:
        for one in (folder, *folder.parents):
            try:
                if not self._lets(one.stat(), who, os.X_OK):
                    return one
            except PermissionError:
                if not has_helper():  # which sees it, and opens nothing that it forbids
                    raise
        return None

    def _lets(self, status: os.stat_result, who: int, bit: int) -> bool:
        def is_member(group: int) -> bool:
            if who not in self._groups:
                self._groups[who] = groups_of(who)
            return group in self._groups[who]

        # The owner can change the mode.
        return status.st_uid == who or mode_lets(status, bit, who, is_member)


def text_of(data: bytes) -> str:
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")


class FileReader:
    """Reads the files that a rules file names, and keeps what was in them; where that is known, neither the disk nor the environment is read.

    Only what is in force for a unit may name what is not known: no text of now names it.

    A draft stands for the file of its path, which may be missing yet. `before` has the files that each pattern found before. `taken` returns what counts of a file that a pattern found.
    """

    def __init__(
        self,
        main: SourceFile,
        known: Files | None = None,
        draft: SourceFile | None = None,
        taken: Callable[[SourceFile], SourceFile] = lambda source: source,
        *,
        reads_rest: bool = False,
        before: Mapping[str, Sequence[str]] = NOTHING_MORE,
    ) -> None:
        self._reads_rest = reads_rest
        self._before = before
        self.main = Path(main.path)
        self._draft = draft
        self._taken = taken
        self._as_read: dict[str, str] = {}
        self.authors = {} if main.author is None else {"": main.author}
        self.folder = self.main.parent
        self._known = known
        self._seen: set[Path] = set()
        self._named: set[Path] = set()
        self._unlisted: dict[Path, OSError] = {}
        self._room = LARGEST_RULES - len(main.text.encode())
        self._rooms_of = defaultdict[int | None, int](lambda: LARGEST_OF_OTHERS)  # by authors
        self._texts = {main.path: main.text}
        self._included: dict[str, list[str]] = {}
        self._variables: dict[str, str | None] = {}
        self.lacking: dict[str, str] = {}

    def files(self) -> Files:
        known = self._known or Files()
        as_read, lacking = {**known.as_read, **self._as_read}, known.lacking
        return Files(
            self._texts, self._included, self._variables, known.untaken, as_read, lacking=lacking
        )

    def author(self, unit: str, path: str) -> int | None:
        return self.authors.get(path) if self._known is None else self._known.authors.get(unit)

    def variable(self, name: str) -> str | None:
        known = {} if self._known is None else self._known.variables
        is_own = self._known is None or (self._reads_rest and name not in known)
        found = os.environ.get(name) if is_own else known.get(name)
        self._variables[name] = found
        return found

    def text(self, path: Path, most: int = LARGEST_LIST) -> str:
        """Read a file of at most so many bytes that is named by a value, or raise `OSError`, or `ValueError` where it is no path of a file."""
        name = str(path)
        if name not in self._texts:
            known = {} if self._known is None else self._known.texts
            is_own = self._known is None or (self._reads_rest and name not in known)
            if not (is_own or name in known):
                raise FileNotFoundError(errno.ENOENT, _NOT_SENT, name)
            self._texts[name] = text_of(read_bytes(path, most)) if is_own else known[name]
        return self._texts[name]

    def include(self, pattern: str) -> list[SourceFile]:
        """Read the files of one item of ``include =``, in sorted order, without those that were included before."""
        if self._known is None:
            files = self._matching(pattern)
        else:
            try:
                paths = [path for path in self._known.included[pattern] if path not in self._texts]
                files = [SourceFile(path, self._known.texts[path]) for path in paths]
            except KeyError as missing:
                raise InvalidValueError(f"cannot read {missing}: {_NOT_SENT}") from None
        if is_pattern(pattern):
            read, files = files, [*map(self._taken, files)]
            self.authors |= {one.path: one.author for one in read if one.author is not None}
            self._as_read |= {
                one.path: one.text for one, its in zip(read, files, strict=True) if its is not one
            }
        self._texts.update((source.path, source.text) for source in files)
        self._included.setdefault(pattern, [source.path for source in files])
        return files

    def keep_for_operator(self, names: Iterable[str]) -> None:
        """Hide from patterns the files that ``include`` names, also further down: they are the operator's, even if another owner links to them."""
        if self._known is None:
            for name in names:
                with suppress(ValueError):  # no path; what reads it says so
                    if not is_pattern(name):
                        self._named.add(real_path(self.folder / name))
            self._named.discard(real_path(self.main))

    def _matching(self, pattern: str) -> list[SourceFile]:
        read = self._read_unit if is_pattern(pattern) else self._read
        try:
            paths = self._paths(pattern)
            found = {path: read(path) for path in smallest_first(paths)}
            sources = [found[path] for path in paths]
        except OSError as error:
            message = f"cannot read {str(error.filename)!r}: {error.strerror}; {self._advice(error, pattern)}"
            raise InvalidValueError(message) from None
        except ValueError:
            raise InvalidValueError(f"{pattern!r} is not a path of a file") from None
        return [source for source in sources if source is not None]

    def _read_unit(self, path: Path) -> SourceFile | None:
        if closed := self._unlisted.get(path):
            advice = "correct the path of 'include', or put a folder there"
            if isinstance(closed, PermissionError):
                advice = self._advice(closed, "")
            message = f"cannot look into '{closed.filename}': {closed.strerror}; {advice}"
        else:
            try:
                return None if real_path(path) in self._named else self._fitting(self._read(path))
            except OSError as error:
                message = f"cannot be read: {error.strerror}; {self._advice(error, str(path))}"
            except InvalidValueError as error:
                if path.absolute() == self.main.absolute():
                    raise  # the pattern is wrong, not what it has found
                message = str(error)
        return SourceFile(str(path), "", (Problem(str(path), 0, "", "", message),))

    def _fitting(self, source: SourceFile | None) -> SourceFile | None:
        author = None if source is None else source.author
        if source is None or author in {None, 0, self.authors.get("", os.geteuid())}:
            return source
        size = len(source.text.encode())
        self._rooms_of[author] -= size
        if self._rooms_of[author] < 0:
            self._room += size
            why = f"all files of user {author} may have {LARGEST_OF_OTHERS >> 20} MiB; remove some rules"
            raise InvalidValueError(why)
        return source

    def _paths(self, pattern: str) -> list[Path]:
        paths, draft = included_paths(self.folder, pattern), self._draft
        if is_pattern(pattern):
            self._unlisted = unlisted(self.folder, pattern)
            paths = with_unseen(paths, map(Path, self._before.get(pattern, ())))
            paths = with_unlisted(paths, self._unlisted)
        if draft is not None:
            own = Path(draft.path).absolute()
            if own.match(str((self.folder / pattern).absolute())):
                others = [path for path in paths if path.absolute() != own]
                return sorted([*others, self.folder / own], key=str)
        return paths

    def _advice(self, error: OSError, pattern: str) -> str:
        if isinstance(error, IsADirectoryError):
            return f"write '{pattern.rstrip('/')}/*.ini' for the files in it"
        if isinstance(error, PermissionError):
            return "let the user that txmux runs as read it"
        if error.errno in {errno.EFBIG, errno.EINVAL, errno.ELOOP, errno.ETIMEDOUT}:
            return "include other files, or mend that one"
        if Path(pattern).is_absolute():
            return "correct the path, or create the file"
        folder = os.path.realpath(self.folder)
        return f"a relative path starts at the folder of the rules file, {folder!r}"

    def _read(self, path: Path) -> SourceFile | None:
        draft = self._draft
        is_draft = draft is not None and path.absolute() == Path(draft.path).absolute()
        source = draft if draft is not None and is_draft else read_source(path, self._room)
        self._room -= len(source.text.encode())
        real, main = real_path(path), real_path(self.main)
        if real == main:
            raise InvalidValueError(
                f"{str(path)!r} is this file itself; put what is included into a folder of its own"
            )
        if real in self._seen:
            return None
        self._seen.add(real)
        return source


# `$$`, or a variable, or what seems to be one.
_DOLLAR = re.compile(
    r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|(?P<wrong>\{))"
)


class UnsetError(InvalidValueError):
    """A variable is not set, and has no default."""


def expand(text: str, variable: Callable[[str], str | None]) -> str:
    """Put the values of variables in their places.

    Args:
        text: Has ``${NAME}`` or ``${NAME:-default}``, of which the default is for a variable that is not set or empty, and
            ``$$``, which is a dollar sign. A dollar sign before anything else stays.
        variable: Returns the value of a variable; ``None`` if it is not set.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if found["wrong"]:
            raise InvalidValueError(
                f"{text[found.start() :]!r} does not name a variable; write ${{NAME}}, ${{NAME:-DEFAULT}}, "
                "or $$ for a dollar sign"
            )
        if name is None:
            return "$"
        given = variable(name)
        if default is not None:
            return given or default[2:].replace("$$", "$")
        if given is None:
            raise UnsetError(
                f"the environment has no variable {name!r}; set it, or write ${{{name}:-DEFAULT}}"
            )
        return given

    return _DOLLAR.sub(value, text) if "$" in text else text


def expand_section(
    section: Section, variable: Callable[[str], str | None] | None
) -> tuple[Section, list[Problem]]:
    """Put the values of variables in their places in all values of a section; lines with errors count as unread.

    Without `variable` the environment is unknown: all variables are taken to be set somewhere, and have their
    defaults, if they have some.
    """
    if not any("$" in item.text for entry in section.entries.values() for item in entry.items):
        return section, []
    problems: list[Problem] = []
    entries, unread = {}, [*section.unread]
    for key, entry in section.entries.items():
        items: list[ValueLine] = []
        for item in entry.items:
            try:
                lines = [item.text]
                if "$" in item.text:
                    lines = expand(item.text, variable or (lambda _: None)).splitlines()
            except InvalidValueError as error:
                if variable is not None or not isinstance(error, UnsetError):
                    problems.append(section.problem(str(error), key, line=section.line_of(item)))
                unread.append(section.line_of(item))
                break
            # The lines of a variable are those of a value.
            items += (ValueLine(item.below, line.strip()) for line in lines if line.strip())
        else:
            entries[key] = attrs.evolve(entry, items=tuple(items))
    return attrs.evolve(section, entries=entries, unread=tuple(unread)), problems
