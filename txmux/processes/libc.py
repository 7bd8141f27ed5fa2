"""Calls the C library and the kernel, whose errors are raised as `OSError`."""

import ctypes
import os


def c_call(function: str, *arguments: object) -> int:
    """Call a function of the C library that returns less than 0 if it fails."""
    result: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def system_call(number: int, *arguments: object) -> int:
    return c_call("syscall", ctypes.c_long(number), *arguments)
