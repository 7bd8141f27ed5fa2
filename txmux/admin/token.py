"""The secret of clients that come by TCP."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from txmux.errors import MuxError
from txmux.files import held_folder, make_by_helper, read_secret

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 32
_SHORTEST = 16


def read_token(path: Path) -> str:
    """Read the secret; a file that is not there is made.

    Raises:
        MuxError: There is none.
    """
    with suppress(OSError):  # reading it tells what is wrong
        try:
            make_token(path)
        except PermissionError:
            make_by_helper(path)
    try:
        token = read_secret(path)
    except OSError as problem:
        raise MuxError(
            f"[txmux] admin_token: {path} can be neither read nor created: {problem.strerror}"
        ) from problem
    if len(token) < _SHORTEST or " " in token:
        raise MuxError(
            f"[txmux] admin_token: {path} does not hold one line of at least {_SHORTEST} ASCII characters without blanks; "
            "remove the file, and a new one is created"
        )
    return token


def make_token(path: Path) -> None:
    """Make the file, unless it is there.

    Raises:
        OSError: It cannot be made.
    """
    try:
        with held_folder(path) as folder:
            how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = os.open(path.name, how, 0o600, dir_fd=folder)
    except FileExistsError:
        return
    with open(file, "w", encoding="ascii") as made:  # noqa: PTH123 - a descriptor
        made.write(f"{secrets.token_urlsafe(_BYTES)}\n")
