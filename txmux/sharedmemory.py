"""Memory that several processes share: a file without a name, which each of them maps."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from contextlib import suppress

from txmux.errors import MuxError

__all__ = ["SharedMemoryError", "grow", "make", "mapped"]


class SharedMemoryError(MuxError):
    """There is less memory than the process that made it says."""


def make(name: str) -> int:
    """Make a file in memory, where the system has such, that is gone when nobody has it open any more.

    It may grow, but not shrink: whoever reads memory that another process has cut off is ended by SIGBUS.

    Args:
        name: For people who look at the process.

    Returns:
        Its descriptor.
    """
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl  # noqa: PLC0415 - not every system has it

    made = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return made


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
