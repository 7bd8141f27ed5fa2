"""The files that rules are read from, and those that a file includes."""

from __future__ import annotations

import codecs
import glob
import os
from pathlib import Path

import attrs

from txmux.files import read_list, read_own
from txmux.rules.model import Files
from txmux.rules.problems import InvalidValueError, Problem


@attrs.frozen
class Source:
    """A file that was read.

    Attributes:
        path: As the user named it, or as it is beside the file that includes it.
        text: What is in it; bytes that are not UTF-8 are replaced.
        problems: The lines that are not UTF-8.
    """

    path: str
    text: str
    problems: tuple[Problem, ...] = ()


def read_source(path: Path | str) -> Source:
    """Read a file.

    Raises:
        OSError: It cannot be read.
    """
    return source_of(path, read_own(Path(path)))


def source_of(path: Path | str, data: bytes) -> Source:
    """Read what is in a file.

    Args:
        path: Its name, for messages.
        data: Its bytes.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Source(
            str(path), "", (Problem(str(path), 1, "", "", "is UTF-16; save the file as UTF-8"),)
        )
    try:
        return Source(str(path), data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        problems = tuple(
            Problem(str(path), number, "", "", "is not UTF-8; save the file in that encoding")
            for number, line in enumerate(data.splitlines(), start=1)
            if not _is_utf8(line)
        )
        return Source(str(path), data.decode("utf-8-sig", "replace"), problems)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def included_paths(folder: Path, pattern: str) -> list[Path]:
    """Return the files that one item of ``include =`` means now, in sorted order.

    Args:
        folder: That of the rules file.
        pattern: The item; without wildcards, its file may not be there.
    """
    if not any(c in pattern for c in "*?["):
        return [folder / pattern]
    # Path.glob() takes no absolute patterns, and finds the hidden files that editors leave.
    names = sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207
    paths = [folder / name for name in names]
    # Folders and devices are left out; a link that leads nowhere is a mistake, which reading it tells.
    return [path for path in paths if path.is_file() or not path.exists()]


def check_file(path: Path, what: str = "the path of a PEM file") -> None:
    """Refuse a file that is not there; whether it can be used is told when it is.

    Args:
        path: Its path.
        what: What it is to be, for messages.

    Raises:
        InvalidValueError: There is no such file.
    """
    folder = str(path.parent.resolve())
    try:
        is_folder = path.is_dir()
        path.stat()
    except PermissionError:
        return  # whoever runs this may have less rights than the service
    except OSError as error:
        raise InvalidValueError(
            f"cannot read '{path}': {error.strerror}; correct the path, or put the file into {folder!r}"
        ) from None
    if is_folder:
        raise InvalidValueError(f"'{path}' is a folder; write {what}")


def text_of(data: bytes) -> str:
    """Read what is in a file that a value names: bytes that are not UTF-8 are replaced, and lines end as on Unix."""
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")


class FileReader:
    """Reads the files that a rules file names, and keeps what was in them.

    Args:
        main: The rules file.
        known: Is read instead of what is on the disk, if it is given.

    Attributes:
        folder: That of the rules file.
    """

    def __init__(self, main: Source, known: Files | None = None) -> None:
        self._main = Path(main.path)
        self.folder = self._main.parent
        self._known = known
        self._seen: set[Path] = set()
        self._texts = {main.path: main.text}
        self._included: dict[str, list[str]] = {}
        self._variables: dict[str, str | None] = {}

    def files(self) -> Files:
        return Files(self._texts, self._included, self._variables)

    def variable(self, name: str) -> str | None:
        """Return the value of a variable of the environment; ``None`` if it is not set."""
        known = self._known.variables if self._known else {}
        found = known[name] if name in known else os.environ.get(name)
        self._variables[name] = found
        return found

    def text(self, path: Path) -> str:
        """Read a file that is named by a value; bytes that are not UTF-8 are replaced.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not the path of a file.
        """
        name = str(path)
        if name not in self._texts:
            self._texts[name] = self._known.texts[name] if self._known else text_of(read_list(path))
        return self._texts[name]

    def include(self, pattern: str) -> list[Source]:
        """Read the files of one item of ``include =``, in sorted order, without those that were included before.

        Raises:
            InvalidValueError: A file that cannot be read, or that includes itself.
        """
        if self._known is None:
            found = self._matching(pattern)
        else:
            paths = [path for path in self._known.included[pattern] if path not in self._texts]
            found = [Source(path, self._known.texts[path]) for path in paths]
        self._texts.update((source.path, source.text) for source in found)
        self._included.setdefault(pattern, [source.path for source in found])
        return found

    def _matching(self, pattern: str) -> list[Source]:
        try:
            sources = [self._read(path) for path in included_paths(self.folder, pattern)]
        except OSError as error:
            raise InvalidValueError(
                f"cannot read {str(error.filename)!r}: {error.strerror}; {self._advice(error, pattern)}"
            ) from None
        except ValueError:
            raise InvalidValueError(f"{pattern!r} is not a path of a file") from None
        return [source for source in sources if source is not None]

    def _advice(self, error: OSError, pattern: str) -> str:
        if isinstance(error, IsADirectoryError):
            return f"write '{pattern.rstrip('/')}/*.ini' for the files in it"
        if isinstance(error, PermissionError):
            return "let the user that txmux runs as read it"
        if Path(pattern).is_absolute():
            return "correct the path, or create the file"
        folder = str(self.folder.resolve())
        return f"a relative path starts at the folder of the rules file, {folder!r}"

    def _read(self, path: Path) -> Source | None:
        source = read_source(path)
        real = path.resolve()
        if real == self._main.resolve():
            raise InvalidValueError(
                f"{str(path)!r} is this file itself; put what is included into a folder of its own"
            )
        if real in self._seen:
            return None
        self._seen.add(real)
        return source
