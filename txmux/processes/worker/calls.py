"""The system calls that a confined worker may make, and what it may give them.

``python -m tests.processes.record_calls`` records those that workers make, and a test compares.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from txmux.admin.peer import MARK

WORD = 2**32 - 1


class Given(NamedTuple):
    """A condition: this argument, counted from 0, has one of these values; only the lower 32 bits count, and of them those of `mask`."""

    argument: int
    values: tuple[int, ...]
    mask: int = WORD


class Rule(NamedTuple):
    """What happens if all conditions hold: the call is made, or fails with this number of an error and is not reported."""

    conditions: tuple[Given, ...] = ()
    error: int = 0


_ANY_ARGUMENTS = """
read write readv writev pread64 lseek close close_range
recvfrom recvmsg sendto sendmsg sendmmsg splice
accept accept4 bind connect shutdown getsockname getpeername getsockopt setsockopt
epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6
pipe pipe2 dup dup2 dup3
stat fstat fstatfs lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd
brk mmap munmap mremap mprotect madvise
futex rseq set_robust_list set_tid_address sched_yield membarrier
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
getrandom getpid gettid getppid getuid geteuid getgid getegid uname sysinfo getrusage getcpu
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
exit exit_group
riscv_hwprobe riscv_flush_icache
"""
ALLOWED = frozenset(_ANY_ARGUMENTS.split())
"""Those that may have any arguments."""

_NAMESPACES = 0x7E020080  # CLONE_NEW… of linux/sched.h
_THREAD = 0x00010000  # CLONE_THREAD
_CHANGING = os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ASYNC = os.O_ASYNC if hasattr(os, "O_ASYNC") else 0x2000
_TYPE = 0xF
"""The bits of a socket's type that are no flags."""
_CLOEXEC = 0x80000
_MPTCP = 262
_NETLINK = 16

_COMMANDS = (
    fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL,
    fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW,
    1031, 1032, 1034,  # F_SETPIPE_SZ, F_GETPIPE_SZ, F_GET_SEALS
)  # fmt: skip
_REQUESTS = (
    0x5450, 0x5451,  # FIONCLEX, FIOCLEX
    0x541B, 0x5411,  # FIONREAD, TIOCOUTQ: bytes to be read, and to be sent
    0x5401, 0x802C542A, 0x5413,  # TCGETS, TCGETS2 (glibc 2.43), TIOCGWINSZ: whether it is a terminal
    0x8910, 0x8933,  # SIOCGIFNAME, SIOCGIFINDEX: zones of addresses
)  # fmt: skip
_OPTIONS = (15, 16, 0x53564D41)
"""``PR_SET_NAME``, ``PR_GET_NAME``; ``PR_SET_VMA``, by which glibc names its memory."""

_LIMITS = tuple(number for number in range(16) if number != MARK)

_UNIX = Rule(
    (Given(0, (socket.AF_UNIX,)), Given(1, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET), _TYPE))
)
"""Not for datagrams, which could tell systemd anything."""


def rules_for(process: int) -> Iterator[tuple[str, Sequence[Rule]]]:
    """Yield each call by its name, with its rules, of which the first one that fits counts; without one, it is refused and reported.

    Args:
        process: The ID of the process that will be confined.
    """
    yield from dict.fromkeys(sorted(ALLOWED), (Rule(),)).items()
    yield from WITH_ARGUMENTS.items()
    own = Rule((Given(0, (0, process)),))
    yield "tgkill", (own,)
    # Not the limit by which `txmux.admin.peer` knows it: root might raise that.
    yield "prlimit64", (Rule((*own.conditions, Given(1, _LIMITS))),)
    # For the bounds of its stack, each thread of Python 3.14 asks by its own ID, which a filter cannot know; the C library does without.
    yield "sched_getaffinity", (own, Rule(error=errno.ENOSYS))


WITH_ARGUMENTS: Mapping[str, Sequence[Rule]] = {
    # Threads of this process. Where `clone3` is missing, the C library does with `clone`, whose flags a filter sees.
    "clone": (Rule((Given(0, (_THREAD,), _THREAD | _NAMESPACES),)),),
    "clone3": (Rule(error=errno.ENOSYS),),
    # No owner of a descriptor, to which the kernel would send signals (F_SETOWN, FIOSETOWN, O_ASYNC …). What other processes also have
    # open, such as a listening socket, has one O_NONBLOCK for all: without it, the next accept(2) of each of them would not return.
    "fcntl": (
        Rule((Given(1, _COMMANDS),)),
        Rule((Given(1, (fcntl.F_SETFL,)), Given(2, (os.O_NONBLOCK,), _ASYNC | os.O_NONBLOCK))),
    ),
    # Which files are opened, Landlock says, but before Linux 6.2 not whether they are truncated. For the log, a worker asks the helper
    # after this error. Only for writing, it opens its standard error stream once more, by /proc/self/fd.
    "open": (Rule((Given(1, (0,), _CHANGING),)), Rule(error=errno.EACCES)),
    "openat": (Rule((Given(2, (0,), _CHANGING),)), Rule(error=errno.EACCES)),
    # It could empty the log, which is opened to append. A line that a full disk has torn ends there instead of being cut off.
    "ftruncate": (Rule(error=errno.EPERM),),
    # FIONBIO can clear O_NONBLOCK, too; see `txmux.processes.worker.sandbox`.
    "ioctl": (Rule((Given(1, _REQUESTS),)), Rule((Given(1, (0x5421,)),), errno.EPERM)),
    "prctl": (Rule((Given(0, _OPTIONS),)),),
    "socket": (
        Rule(
            (
                Given(0, (socket.AF_INET, socket.AF_INET6)),
                Given(1, (socket.SOCK_STREAM, socket.SOCK_DGRAM), _TYPE),
                Given(2, (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, _MPTCP)),
            )
        ),
        _UNIX,
        # The C library tries these to find addresses and interfaces of this machine, and does without them.
        Rule((Given(0, (_NETLINK,)), Given(2, (0,))), errno.EPERM),
        Rule(
            (
                Given(0, (socket.AF_UNIX,)),
                Given(1, (socket.SOCK_DGRAM | _CLOEXEC,)),
                Given(2, (0,)),
            ),
            errno.EPERM,
        ),
    ),
    "socketpair": (_UNIX,),
}  # fmt: skip
