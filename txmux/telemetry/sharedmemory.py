"""Memory shared by several processes: a file without a name that each of them maps."""

import errno
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress

from txmux.errors import MuxError

# linux/memfd.h and linux/fcntl.h
_CLOSE_ON_EXEC, _MAY_BE_SEALED = 1, 2
_ADD_SEALS = 1033
_SEAL_SEAL, _SEAL_SHRINK = 1, 2


class SharedMemoryError(MuxError):
    """The memory is smaller than its creator has declared."""


def make(name: str) -> int:
    """Create a file in memory where the system has such, else a temporary one without a name; return its descriptor.

    It can grow but not shrink: a process that reads memory behind the end of its file gets SIGBUS. An `OSError` says that there is no
    descriptor or no memory left.
    """
    made = _in_memory(name) if sys.platform == "linux" else -1
    if made < 0:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl  # noqa: PLC0415 - Windows lacks it

    with suppress(OSError):  # not every kernel has seals
        fcntl.fcntl(made, _ADD_SEALS, _SEAL_SHRINK | _SEAL_SEAL)
    return made


def _in_memory(name: str) -> int:
    flags = _CLOSE_ON_EXEC | _MAY_BE_SEALED
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name, flags)
        # Builds of Python with an older C library, such as those of uv and conda, lack it.
        import ctypes  # noqa: PLC0415 - as this comment says

        return int(ctypes.CDLL(None).memfd_create(name.encode(), flags))
    except AttributeError:
        return -1
    except OSError as problem:
        if problem.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise  # a temporary file would need as much
        return -1  # the system lacks or forbids it


def grow(descriptor: int, size: int) -> None:
    """Make a file at least this many bytes long; another process may have made it longer already."""
    if os.fstat(descriptor).st_size < size:
        with suppress(PermissionError):  # it has become larger meanwhile, and cannot shrink
            os.ftruncate(descriptor, size)


def mapped(descriptor: int, size: int) -> memoryview:
    """Map a file, which has to be as long; the mapping is freed with the last view of it."""
    try:
        return memoryview(mmap.mmap(descriptor, size))
    except (OSError, OverflowError, ValueError) as problem:
        raise SharedMemoryError(f"{size} bytes of memory cannot be shared: {problem}") from problem


def written(descriptor: int, start: int, end: int) -> Iterator[range]:
    """Yield the parts of a file, within these bytes, that anybody has ever written; all of them where the system does not say."""
    try:
        while start < end and (begin := os.lseek(descriptor, start, os.SEEK_DATA)) < end:
            start = min(os.lseek(descriptor, begin, os.SEEK_HOLE), end)
            yield range(begin, start)
    except (AttributeError, OSError) as problem:
        if getattr(problem, "errno", 0) != errno.ENXIO:  # else nothing more is
            yield range(start, end)
