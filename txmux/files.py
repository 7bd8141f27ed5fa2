"""Opening files that this process may not open any more, by somebody who may."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOG = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_MODE = 0o640  # who came and what they asked for is nobody else's business

_helper: Callable[[Path, int], int] | None = None


def use_helper(helper: Callable[[Path, int], int] | None) -> None:
    """Have somebody else asked for files that this process is not permitted to open.

    Args:
        helper: Is given a path and flags as `os.open` takes them, and gives a descriptor or raises `OSError`.
    """
    global _helper  # noqa: PLW0603 - what a process may do is the process's
    _helper = helper


def open_log(path: Path, owner: tuple[int, int] | None = None, *, alone: bool = False) -> int:
    """Open a file to append to, and give its descriptor.

    Args:
        path: Its path; it is made if it is not there.
        owner: The user and group IDs that own it then, if this process may give it away.
        alone: Whether no helper is asked.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        if path.is_fifo() or path.is_socket():
            raise OSError(errno.EINVAL, "it is neither a file nor a device")
        made = not path.exists()
        file = os.open(path, _LOG | os.O_CLOEXEC, _MODE)
    except PermissionError:
        if _helper is None or alone:
            raise
        return _helper(path, _LOG)
    if made and owner is not None and os.geteuid() == 0:
        os.fchown(file, *owner)
    return file


def read_bytes(path: Path) -> bytes:
    """Read all of a file.

    Raises:
        OSError: It cannot be read, by the helper neither.
    """
    try:
        return path.read_bytes()
    except PermissionError:
        if _helper is None:
            raise
    with open(_helper(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - a descriptor
        return file.read()
