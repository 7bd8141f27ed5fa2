"""A plugin that tries to do what the sandbox forbids, whenever a client comes. The tests copy it to where plugins are looked for."""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from txmux.files import read_bytes
from txmux.interfaces import Verdict
from txmux.processes.forking import exit_after
from txmux.processes.worker.seccomp import GENERIC, X86_64
from txmux.wire.plain import PlainMatcher

_FOLDER = Path(os.environ.get("NOSY_FOLDER", "."))
_SECRET = _FOLDER / "secret"
_log = Logger(namespace="txmux")


def _in_a_thread() -> None:
    caught: list[OSError] = []

    def read() -> None:
        try:
            _SECRET.read_bytes()
        except OSError as problem:
            caught.append(problem)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]


def _connect() -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(_FOLDER / "admin.sock"))
    return client


def _ask(client: socket.socket) -> None:
    with client:
        client.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if client.recv(100).startswith(b"HTTP/1.1 403 "):
            raise PermissionError(errno.EACCES, "403")


def _supervisor() -> int:
    with _connect() as client:
        packed = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", packed)[0])


def _in_a_child(do: Callable[[], object], *, is_orphan: bool = False) -> None:
    """Do it in another process; as an orphan, in one whose parent has ended."""
    reader, writer = os.pipe()

    def run() -> None:
        parent = os.getpid()
        if is_orphan and os.fork():  # noqa: TID251
            return
        while is_orphan and os.getppid() == parent:
            time.sleep(0.001)
        number = 0
        try:
            do()
        except OSError as problem:
            number = problem.errno or 0
        os.write(writer, bytes([number]))

    child = os.fork()  # noqa: TID251
    if not child:
        exit_after(run)
    os.waitpid(child, 0)
    number = os.read(reader, 1)[0]
    os.close(reader)
    os.close(writer)
    if number:
        raise OSError(number, "in another process")


def _by_one_that_has_ended() -> None:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    _in_a_child(lambda: client.connect(str(_FOLDER / "admin.sock")))
    _ask(client)


def _call(name: str, *arguments: int) -> None:
    """Make a system call; most of the arguments are wrong, so that one which is made fails in another way."""
    numbers = X86_64 if os.uname().machine == "x86_64" else GENERIC
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*map(ctypes.c_long, (numbers[name], *arguments))) < 0:
        raise OSError(ctypes.get_errno(), name)


def _kill_by_file() -> None:
    """Have the kernel send a signal when something can be read (fcntl(2), F_SETOWN)."""
    own, other = socket.socketpair()
    with own, other:
        fcntl.fcntl(own, fcntl.F_SETOWN, _supervisor())
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGCONT)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC)
        other.send(b"x")


def _on_socket(do: Callable[[int], object]) -> None:
    with socket.socket() as one:
        do(one.fileno())


def _blocks_again() -> None:
    """Wait for bytes by a socket that did not block, as code in a thread may."""
    own, other = socket.socketpair()
    with own, other:
        own.settimeout(0)
        own.settimeout(None)
        timer = threading.Timer(0.1, other.send, [b"x"])
        timer.start()
        own.recv(1)
        timer.join()
        own.settimeout(0.01)
        try:
            own.recv(1)
        except TimeoutError:
            return
        raise AssertionError


def _request(request: int) -> None:
    _on_socket(lambda at: fcntl.ioctl(at, request, struct.pack("i", _supervisor())))


_OTHER_CALLS = (
    "userfaultfd", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "io_uring_setup",
    "ptrace", "process_vm_readv", "pidfd_getfd", "seccomp", "mount", "setns", "personality", "kcmp",
    "setresuid", "capset", "memfd_create",
)  # fmt: skip

ATTEMPTS: Mapping[str, Callable[[], object]] = {
    "passwords": lambda: Path("/etc/shadow").read_bytes(),
    "read": _SECRET.read_bytes,
    "beside": (Path(__file__).parents[2] / "token").read_bytes,
    "list": lambda: list(_FOLDER.iterdir()),
    "thread": _in_a_thread,
    "named": (_FOLDER / "site.pem").read_bytes,  # only txmux's own code asks the helper
    "helper": lambda: read_bytes(_SECRET),
    "parent": lambda: Path(f"/proc/{os.getppid()}/root/etc/shadow").read_bytes(),
    "memory": lambda: Path(f"/proc/{os.getppid()}/mem").open("rb").close(),
    "write": lambda: (_FOLDER / "made").write_bytes(b"x"),
    "append": lambda: _SECRET.open("ab").close(),
    "remove": (_FOLDER / "old").unlink,
    "link": lambda: (_FOLDER / "link").symlink_to("secret"),
    "admin": lambda: _ask(_connect()),
    "admin_child": lambda: _in_a_child(lambda: _ask(_connect())),
    "admin_orphan": lambda: _in_a_child(lambda: _ask(_connect()), is_orphan=True),
    "admin_ended": _by_one_that_has_ended,
    "starter": lambda: os.kill(os.getppid(), 0),
    "supervisor": lambda: os.kill(_supervisor(), 0),
    "supervisor_orphan": lambda: _in_a_child(lambda: os.kill(_supervisor(), 0), is_orphan=True),
    "limits": lambda: resource.prlimit(_supervisor(), resource.RLIMIT_NOFILE),
    "scheduling": lambda: os.sched_setaffinity(_supervisor(), os.sched_getaffinity(0)),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, _supervisor(), 0),
    "mode": lambda: (_FOLDER / "old").chmod(0o666),
    "times": lambda: os.utime(_FOLDER / "old"),
    "notify": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC),
    "notify_raw": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW),
    "notify_pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "abstract": lambda: socket.socket(socket.AF_UNIX).connect(f"\0{_FOLDER}"),
    "kill_by_file": _kill_by_file,
    "owner_of_file": lambda: _on_socket(
        lambda at: fcntl.fcntl(at, 15, struct.pack("2i", 1, _supervisor()))  # F_SETOWN_EX
    ),
    "signal_of_file": lambda: _on_socket(lambda at: fcntl.fcntl(at, fcntl.F_SETSIG, 9)),
    "async_file": lambda: _on_socket(lambda at: fcntl.fcntl(at, fcntl.F_SETFL, os.O_ASYNC)),
    "blocking": lambda: _on_socket(lambda at: fcntl.fcntl(at, fcntl.F_SETFL, 0)),
    "fionbio": lambda: _on_socket(lambda at: fcntl.ioctl(at, 0x5421, struct.pack("i", 0))),
    "blocks_again": _blocks_again,
    "fiosetown": lambda: _request(0x8901),
    "siocspgrp": lambda: _request(0x8902),
    "fioasync": lambda: _request(0x5452),
    "netlink": lambda: socket.socket(16, socket.SOCK_RAW, 4),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "ping": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "truncate": lambda: os.truncate(_FOLDER / "old", 0),
    "truncate_by_reading": lambda: os.close(os.open(_FOLDER / "old", os.O_RDONLY | os.O_TRUNC)),
    "root_key": lambda: _call("keyctl", 11, int(os.environ.get("NOSY_KEY", "-1")), 0, 0),
    "listen": lambda: socket.socket().listen(),
    "new_user": lambda: _call("unshare", 0x10000000),
    "new_user_by_clone": lambda: _call("clone", 0x10010000),
    "dumpable": lambda: _call("prctl", 4, 1),
    **{name: partial(_call, name, -1, -1, -1, -1, -1) for name in _OTHER_CALLS},
    "execute": lambda: subprocess.run(["/bin/true"], check=True),
}


class _Nosy:
    longest = 1

    def __call__(self, peeked: Any) -> Verdict:
        for name, attempt in ATTEMPTS.items():
            try:
                attempt()
                what = "done"
            except OSError as problem:
                what = errno.errorcode[problem.errno or 0]
            _log.info("tried {name}: {what}", name=name, what=what)
        _log.info("tried all")
        return Verdict.MATCH


nosy = PlainMatcher("nosy", "any client", _Nosy())
