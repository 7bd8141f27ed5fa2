"""A file that has the ID of the process which serves now."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from txmux.errors import MuxError


class PidFileError(MuxError):
    """The file cannot be written."""


class PidFile:
    """Written when a process begins to serve, and removed by the last one.

    Readers find the whole ID of one process at any moment, since another one's file takes its place in one step.

    Args:
        path: Where it is.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()

    def write(self) -> None:
        """Name this process.

        Raises:
            PidFileError: It cannot be written.
        """
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.write_text(f"{os.getpid()}\n")
            new.replace(self._path)
        except OSError as problem:
            with suppress(OSError):
                new.unlink()
            raise PidFileError(f"--pidfile {self._path}: {problem.strerror}") from problem

    def remove(self) -> None:
        """Remove it, unless another process has been named meanwhile."""
        with suppress(OSError):
            if self._path.read_text() == f"{os.getpid()}\n":
                self._path.unlink()
