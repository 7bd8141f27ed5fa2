"""Descriptors of processes (pidfd_open(2)), also where Python was built with an older C library, as those of uv and conda were."""

from __future__ import annotations

import os
import signal

__all__ = ["pidfd_open", "send_signal"]

# asm-generic/unistd.h; since these, system calls have the same numbers on all processors
_SEND_SIGNAL, _OPEN = 424, 434


def pidfd_open(pid: int) -> int:
    """Open a process: a descriptor that can be read when it has ended, and that no other process inherits.

    Raises:
        OSError: It cannot be opened; there may be none.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _call(_OPEN, pid, 0)


def send_signal(descriptor: int, number: signal.Signals) -> None:
    """Send a signal to a process (pidfd_send_signal(2)).

    Raises:
        OSError: It has ended.
    """
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(descriptor, number)
    else:
        _call(_SEND_SIGNAL, descriptor, number, None, 0)


def _call(number: int, *arguments: int | None) -> int:
    import ctypes  # noqa: PLC0415 - hardly anybody needs it

    system = ctypes.CDLL(None, use_errno=True).syscall
    system.restype = ctypes.c_long
    result = int(system(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
