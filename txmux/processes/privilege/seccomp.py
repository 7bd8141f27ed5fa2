"""Filters the system calls (seccomp(2)) by which a confined process could still stop the service of its own user.

Landlock does not restrict them, or only since Linux 6.12 (signals): limits and scheduling of other processes (``prlimit`` with
``RLIMIT_CPU`` ends them), modes, owners and times of files, and UNIX sockets for datagrams, which can send anything to systemd.
"""

import ctypes
import errno
import os
import socket
import struct
import sys

_COMMON = (424, 425, 452, 463, 466, 469)
"""``pidfd_send_signal``; ``io_uring_setup``, whose requests no filter sees; ``fchmodat2``, ``setxattrat``, ``removexattrat``, ``file_setattr``."""
_REFUSED = {
    "x86_64": (
        *(62, 129, 200, 297),  # kill, rt_sigqueueinfo, tkill, rt_tgsigqueueinfo
        *(90, 91, 268, 92, 93, 94, 260),  # chmod, chown …
        *(132, 235, 261, 280),  # utime …
        *(188, 189, 190, 197, 198, 199),  # setxattr, removexattr …
        *(141, 251, 256, 279),  # setpriority, ioprio_set, migrate_pages, move_pages
    ),
    "generic": (
        *(129, 138, 130, 240),
        *(52, 53, 54, 55),
        88,
        *(5, 6, 7, 14, 15, 16),
        *(140, 30, 238, 239),
    ),
}
_OWN = {
    "x86_64": (234, 302, 142, 144, 203, 314),
    "generic": (131, 261, 118, 119, 122, 274),
}
"""Allowed if the first argument is this process: ``tgkill``, ``prlimit64``, ``sched_setparam``, ``…scheduler``, ``…affinity``, ``…attr``."""
_SOCKETS = {"x86_64": (41, 53), "generic": (198, 199)}
"""``socket`` and ``socketpair``."""
_SECCOMP = {"x86_64": 317, "generic": 277}
_MACHINES = {  # linux/audit.h
    "x86_64": ("x86_64", 0xC000003E),
    "aarch64": ("generic", 0xC00000B7),
    "riscv64": ("generic", 0xC00000F3),
}

_SET_FILTER, _SPEC_ALLOW = 1, 1 << 2
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # places in struct seccomp_data
# Clears the flags, and turns SOCK_RAW into SOCK_DGRAM, which are the same for UNIX sockets.
_TYPE = 0xE
_X32 = 1 << 30
"""From here on are the numbers of another ABI."""
_REFUSE, _ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict_calls() -> bool:
    """Refuse these calls to this thread and all that it starts; return whether this machine can. Needs ``PR_SET_NO_NEW_PRIVS``."""
    table, architecture = _MACHINES.get(os.uname().machine, ("", 0))
    if not table or sys.platform != "linux" or sys.maxsize < 2**32:
        return False
    code = _filter(table, architecture)
    program = _Program(
        len(code), b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    )
    done = ctypes.CDLL(None).syscall(
        ctypes.c_long(_SECCOMP[table]),
        ctypes.c_uint(_SET_FILTER),
        ctypes.c_uint(_SPEC_ALLOW),
        ctypes.byref(program),
    )
    return bool(done == 0)


def _filter(table: str, architecture: int) -> list[tuple[int, int, int, int]]:
    """Return the instructions: operation, how many to skip if it is true, how many if not, and its value."""
    refused, own, sockets = _REFUSED[table] + _COMMON, _OWN[table], _SOCKETS[table]
    check_process = 5 + len(refused) + len(own) + len(sockets)
    check_socket, refuse = check_process + 3, check_process + 8
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, refuse - 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, refuse - 4, 0, _X32),
    ]
    for numbers, to in ((refused, refuse), (own, check_process), (sockets, check_socket)):
        for number in numbers:
            code.append((_IF_EQUAL, to - len(code) - 1, 0, number))
    return [
        *code,
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST),
        (_IF_EQUAL, 7, 0, 0),
        (_IF_EQUAL, 6, 5, os.getpid()),
        (_LOAD, 0, 0, _FIRST),
        (_IF_EQUAL, 0, 4, socket.AF_UNIX),
        (_LOAD, 0, 0, _SECOND),
        (_AND, 0, 0, _TYPE),
        (_IF_EQUAL, 0, 1, socket.SOCK_DGRAM),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
