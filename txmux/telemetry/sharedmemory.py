"""Memory that several processes share: a file without a name, which each of them maps."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from contextlib import suppress

from txmux.errors import MuxError

__all__ = ["SharedMemoryError", "grow", "make", "mapped"]

# linux/memfd.h and linux/fcntl.h
_CLOSE_ON_EXEC, _MAY_BE_SEALED = 1, 2
_ADD_SEALS = 1033
_SEAL_SEAL, _SEAL_SHRINK = 1, 2


class SharedMemoryError(MuxError):
    """There is less memory than the process that made it says."""


def make(name: str) -> int:
    """Make a file in memory, where the system has such, that is gone when nobody has it open any more.

    It may grow, but not shrink: whoever reads memory that another process has cut off is ended by SIGBUS.

    Args:
        name: For people who look at the process.

    Returns:
        Its descriptor.

    Raises:
        OSError: There can be no file.
    """
    made = _in_memory(name) if sys.platform == "linux" else -1
    if made < 0:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl  # noqa: PLC0415 - not every system has it

    with suppress(OSError):  # not every kernel has seals
        fcntl.fcntl(made, _ADD_SEALS, _SEAL_SHRINK | _SEAL_SEAL)
    return made


def _in_memory(name: str) -> int:
    flags = _CLOSE_ON_EXEC | _MAY_BE_SEALED
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name, flags)
        # Python does not have it where it was built with an older C library, as those of uv and conda were.
        import ctypes  # noqa: PLC0415 - hardly anybody needs it

        return int(ctypes.CDLL(None).memfd_create(name.encode(), flags))
    except (AttributeError, OSError):  # nor does the system, or does not permit it
        return -1


def grow(descriptor: int, size: int) -> None:
    """Let a file have at least this many bytes; whoever shares it may have made it larger already.

    Raises:
        OSError: It cannot be as large.
    """
    if os.fstat(descriptor).st_size < size:
        with suppress(PermissionError):  # it has become larger meanwhile, and cannot shrink
            os.ftruncate(descriptor, size)


def mapped(descriptor: int, size: int) -> memoryview:
    """Map a file; the memory is given back with the last that uses it.

    Args:
        descriptor: Of the file.
        size: Bytes, from its beginning; at least one.

    Raises:
        SharedMemoryError: There are fewer.
    """
    try:
        return memoryview(mmap.mmap(descriptor, size))
    except (OSError, OverflowError, ValueError) as problem:
        raise SharedMemoryError(f"{size} bytes of memory cannot be shared: {problem}") from problem
