"""Reading rules files, and finding those that a file includes."""

from __future__ import annotations

import codecs
import glob
from pathlib import Path

import attrs

from txmux.rules.problems import InvalidValueError, Problem

__all__ = ["Includer", "Source", "check_file", "read_source"]


@attrs.frozen
class Source:
    """A file that was read.

    Attributes:
        path: As the user named it, or as it stands beside the file that includes it.
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
    data = Path(path).read_bytes()
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


def check_file(path: Path) -> None:
    """Refuse a file that is not there; whether it can be used is told when it is.

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
        raise InvalidValueError(f"'{path}' is a folder; write the path of a PEM file")


class Includer:
    """Reads the files that ``include =`` names, each only once.

    Args:
        path: The file that includes.
    """

    def __init__(self, path: str) -> None:
        self._folder = Path(path).parent
        self._main = Path(path)
        self._seen: set[Path] = set()

    def __call__(self, pattern: str) -> tuple[Source, ...]:
        """Read the files of one pattern, in sorted order.

        Raises:
            InvalidValueError: A file that cannot be read, or that includes itself.
        """
        try:
            sources = [self._read(path) for path in self._paths(pattern)]
        except OSError as error:
            raise InvalidValueError(
                f"cannot read {str(error.filename)!r}: {error.strerror}; {self._advice(error, pattern)}"
            ) from None
        except ValueError:
            raise InvalidValueError(f"{pattern!r} is no path of a file") from None
        return tuple(source for source in sources if source is not None)

    def _paths(self, pattern: str) -> list[Path]:
        if not any(c in pattern for c in "*?["):
            return [self._folder / pattern]
        # Path.glob() takes no absolute patterns, and finds the hidden files that editors leave.
        names = sorted(glob.glob(pattern, root_dir=self._folder))  # noqa: PTH207
        paths = [self._folder / name for name in names]
        # Folders and devices are left out; a link that leads nowhere is a mistake, which reading it tells.
        return [path for path in paths if path.is_file() or not path.exists()]

    def _advice(self, error: OSError, pattern: str) -> str:
        if isinstance(error, IsADirectoryError):
            return f"write '{pattern.rstrip('/')}/*.ini' for the files in it"
        if isinstance(error, PermissionError):
            return "let the user that txmux runs as read it"
        if Path(pattern).is_absolute():
            return "correct the path, or create the file"
        folder = str(self._folder.resolve())
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
