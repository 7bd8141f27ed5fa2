"""The secrets of other programs, each the only line of a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from txmux.errors import MuxError
from txmux.files import Reader, read_bytes, read_secret
from txmux.net.turns import look_in_thread

_LONGEST = 1 << 16  # characters


class SecretFileError(MuxError):
    """The file with a secret cannot be used; `key` names it, where that is known."""

    key = ""


def read_key(
    path: Path, encoding: str = "ascii", longest: int = _LONGEST, read: Reader = read_bytes
) -> str:
    """Read the secret in a file, in ASCII as HTTP sends it; a `SecretFileError` names the file if there is none."""
    try:
        secret = read_secret(path, encoding, read)
    except OSError as problem:
        raise _unreadable(path, problem) from None
    if not 0 < len(secret) <= longest:
        what = f"one line of at most {longest} characters with a secret"
        raise SecretFileError(f"'{path}' does not hold {what}; write it there")
    return secret


read_text = partial(read_key, encoding="utf-8")


async def secret_of(path: Path, read: Callable[[Path], str] = read_key) -> str:
    """Read a secret in a thread, since the disk may not answer."""
    try:
        return await look_in_thread(read, path)
    except OSError as problem:
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: OSError) -> SecretFileError:
    return SecretFileError(f"cannot read '{path}': {problem.strerror}")
