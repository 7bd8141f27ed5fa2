"""Allows a process only the system calls that workers make (seccomp(2)); see `txmux.processes.worker.calls`.

Landlock restricts files, but neither the other ways to a file's modes, owners and times, nor other processes (and signals only since
Linux 6.12), nor most of the kernel's other interfaces.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby

from txmux.processes.libc import system_call
from txmux.processes.worker.calls import Given, Rule, rules_for

# Of each table of numbers, the first number of a block of names, in the order of the kernel's. Source:
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.19, by their headers for programs.
_COMMON = """
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd
landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
open_tree_attr file_getattr file_setattr listns
"""
"""From 424 on, all architectures have the same."""


def _numbered(names: str) -> dict[str, int]:
    """Number the names from 0 on, and then the common ones; ``-`` is none."""
    blocks = enumerate(names.split()), enumerate(_COMMON.split(), 424)
    return {name: number for block in blocks for number, name in block if name != "-"}


X86_64 = _numbered("""
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl
dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate
getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown
umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod
uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall
munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages
getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl
tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
pkey_alloc pkey_free statx io_pgetevents rseq
""")
GENERIC = _numbered("""
io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie eventfd2 epoll_create1
epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get
flock mknodat mkdirat unlinkat symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs fstatfs truncate
ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2 quotactl
getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4 vmsplice
splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create timerfd_settime
timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address unshare futex
set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module timer_create
timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
syslog ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity sched_getaffinity
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill tgkill
sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn
setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid
setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname sethostname setdomainname getrlimit setrlimit
getrusage umask prctl getcpu gettimeofday settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid
sysinfo mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget
semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen accept connect getsockname getpeername
sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead brk munmap mremap add_key request_key keyctl
clone execve mmap fadvise64 swapon swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise
remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4
recvmmsg - - - - - - - - - - - - - - riscv_hwprobe riscv_flush_icache wait4 prlimit64 fanotify_init fanotify_mark - -
clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr
renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2
pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load
""")
"""Those of ARM64 and RISC-V; two are RISC-V's alone."""


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
        A descriptor for another process, for whose answer a refused call waits (`txmux.processes.worker.refusals`); ``None`` if the
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
