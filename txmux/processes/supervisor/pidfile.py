"""The file with the ID of the process that serves."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from txmux.errors import MuxError
from txmux.files import held_folder, replace_file


class PidFileError(MuxError):
    """The file cannot be written."""


class PidFile:
    """Written when a process starts to serve, and removed by the last one.

    Attributes:
        by_helper: Writes the file where this process may not; with ``True``, removes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.by_helper: Callable[[bool], None] | None = None

    def write(self) -> None:
        try:
            try:
                write_pid(self.path, os.getpid())
            except PermissionError:
                if self.by_helper is None:
                    raise
                self.by_helper(False)  # noqa: FBT003 - its type is that of a callable
        except OSError as problem:
            raise PidFileError(f"--pidfile {self.path}: {problem.strerror}") from problem

    def write_again(self) -> None:
        """Write the file again if it was removed; one of another process stays."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            self.write()
        except OSError:  # this process may not see it
            return

    def remove(self) -> None:
        """Remove the file, unless it names another process by now."""
        with suppress(OSError, MuxError):
            try:
                remove_pid(self.path, os.getpid())
            except PermissionError:
                if self.by_helper is not None:
                    self.by_helper(True)  # noqa: FBT003 - as above


def write_pid(path: Path, pid: int) -> None:
    # Follows no links, and readers always find a complete ID.
    replace_file(path, b"%d\n" % pid, mode=0o666)


def remove_pid(path: Path, pid: int) -> None:
    """Remove the file if it has this ID."""
    with held_folder(path) as folder:
        how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path.name, how, dir_fd=folder), "rb") as file:  # noqa: PTH123 - a descriptor
            named = file.read(32)
        if named == b"%d\n" % pid:
            os.unlink(path.name, dir_fd=folder)
