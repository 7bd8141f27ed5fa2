"""Restricts this process by Landlock of Linux to the files that it names, and keeps it from sending signals to others.

It makes system calls, since the C library has no functions for Landlock.
"""

import ctypes
import os
import stat
import sys
from collections.abc import Iterable

from txmux.processes.libc import c_call, system_call

# linux/landlock.h; the numbers of the calls are those of all architectures but alpha
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR, _TRUNCATE = 1 << 2, 1 << 3, 1 << 14
_FIRST = (1 << 13) - 1
_LATER = {2: 1 << 13, 3: _TRUNCATE}
_SCOPES = 6
"""The first version with scopes: a process reaches abstract UNIX sockets, and sends signals to processes, of its own sandbox only."""
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

_NO_NEW_PRIVILEGES = 38  # prctl(2)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the kernel's version of Landlock; 0 if it has none, or does not let this process use it."""
    if sys.platform != "linux" or os.uname().machine == "alpha":
        return 0
    try:
        return system_call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def give_up_privileges() -> None:
    """Keep programs that this process executes from gaining privileges (prctl(2), ``PR_SET_NO_NEW_PRIVS``)."""
    zero = ctypes.c_ulong(0)
    c_call("prctl", _NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero)


def restrict(read: Iterable[str]) -> None:
    """Let this thread, and all that it starts, read only these files and folders, and create or remove none.

    Needs `give_up_privileges` before. Open files stay open. Sockets, and files without a path, are not restricted, nor are
    changes of modes, owners and times.

    Args:
        read: Paths of files, or of folders with all their contents; missing ones are ignored.

    Raises:
        OSError: The kernel has no Landlock, or does not permit it.
    """
    version = abi()
    handled = _FIRST | sum(right for since, right in _LATER.items() if since <= version)
    # A kernel refuses a longer structure than it knows, unless the rest of it is 0.
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if version >= _SCOPES else 0
    attributes = _Ruleset(handled, 0, scoped)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = system_call(_CREATE, ctypes.byref(attributes), size, ctypes.c_uint32(0))
    try:
        for path in read:
            _allow(ruleset, path)
        system_call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _READ_FILE | (_READ_DIR if is_folder else 0)
        rule = _PathBeneath(rights, descriptor)
        to, kind = ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH)
        system_call(_ADD, to, kind, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)
