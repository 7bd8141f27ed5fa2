"""Allows a process only the system calls that workers make (seccomp(2)); see `txmux.processes.privilege.calls`.

Landlock restricts files, but neither the other ways to a file's modes, owners and times, nor other processes (and signals only since
Linux 6.12), nor most of the kernel's other interfaces.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby

from txmux.processes.privilege.call_numbers import GENERIC, X86_64
from txmux.processes.privilege.calls import Given, Rule, rules_for
from txmux.processes.privilege.libc import system_call

MACHINES: Mapping[str, tuple[Mapping[str, int], int]] = {  # linux/audit.h
    "x86_64": (X86_64, 0xC000003E),
    "aarch64": (GENERIC, 0xC00000B7),
    "riscv64": (GENERIC, 0xC00000F3),
}
"""The numbers of calls, and that of the architecture."""

Instruction = tuple[int, int, int, int]
"""An operation, how many instructions to skip if it is true, how many if not, and its value."""

_SET_FILTER, _SPEC_ALLOW, _NEW_LISTENER = 1, 1 << 2, 1 << 3
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # places in struct seccomp_data
_ALLOW, _REPORT, _FAIL = 0x7FFF0000, 0x7FC00000, 0x00050000
_REFUSE = _FAIL | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_known() -> bool:
    """Return whether there is a filter for this machine."""
    known = os.uname().machine in MACHINES
    return known and sys.platform == "linux" and sys.maxsize > 2**32


def restrict_calls() -> int | None:
    """Refuse all other calls to this thread and all that it starts, with ``EPERM``; needs ``PR_SET_NO_NEW_PRIVS``.

    Returns:
        A descriptor for another process, for whose answer a refused call waits (`txmux.processes.privilege.refusals`); ``None`` if the
        kernel refuses calls without a report.

    Raises:
        OSError: The kernel does not permit it.
    """
    numbers, architecture = MACHINES[os.uname().machine]
    rules = {numbers[name]: found for name, found in rules_for(os.getpid()) if name in numbers}
    try:
        return _install(
            numbers["seccomp"], filter_of(rules, architecture, _REPORT), _SPEC_ALLOW | _NEW_LISTENER
        )
    except OSError:  # such as in a container that has a listener of its own
        _install(numbers["seccomp"], filter_of(rules, architecture, _REFUSE), _SPEC_ALLOW)
        return None


def _install(number: int, code: Sequence[Instruction], flags: int) -> int:
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    program = ctypes.byref(_Program(len(code), packed))
    return system_call(number, ctypes.c_uint(_SET_FILTER), ctypes.c_uint(flags), program)


def filter_of(
    rules: Mapping[int, Sequence[Rule]], architecture: int, otherwise: int
) -> list[Instruction]:
    """Return the program: a binary search by the number, so that no call costs more than a few instructions.

    The kernel runs it only for calls of which the arguments count; it knows from then on which numbers are always allowed.

    Args:
        rules: By the number of the call; the first one that fits counts.
        architecture: That of the numbers. Those of others, such as of 32 bits, have another meaning.
        otherwise: What the kernel does if none fits.
    """
    numbers = sorted({0, *rules, *(number + 1 for number in rules)})
    codes = [(first, _code_of(rules.get(first, ()), otherwise)) for first in numbers]
    # Neighbours that are treated alike are one range.
    ranges = [next(same) for _, same in groupby(codes, lambda found: found[1])]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, otherwise),
        (_LOAD, 0, 0, _NUMBER),
        *_search(ranges),
    ]


def _search(ranges: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_IF_AT_LEAST, len(below), 0, ranges[middle][0]), *below, *above]


def _code_of(rules: Sequence[Rule], otherwise: int) -> list[Instruction]:
    code: list[Instruction] = []
    for conditions, error in rules:
        done = [(_RETURN, 0, 0, _FAIL | error if error else _ALLOW)]
        for condition in reversed(conditions):
            done = [*_check(condition, len(done)), *done]
        code += done
        if not conditions:
            return code
    return [*code, (_RETURN, 0, 0, otherwise)]


def _check(given: Given, rest: int) -> list[Instruction]:
    """Skip the `rest` of the rule unless the condition holds."""
    code = [(_LOAD, 0, 0, _ARGUMENTS + 8 * given.argument)]
    if given.mask != 2**32 - 1:
        code.append((_AND, 0, 0, given.mask))
    last = len(given.values) - 1
    for index, value in enumerate(given.values):
        code.append((_IF_EQUAL, last - index, rest if index == last else 0, value))
    return code
