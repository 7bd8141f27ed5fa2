"""A plugin that tries to do what the sandbox forbids, whenever a client comes. The tests copy it to where plugins are looked for."""

import errno
import os
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from txmux.files import read_bytes
from txmux.interfaces import Verdict
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
    child = os.fork()
    if not child:
        parent = os.getpid()
        if is_orphan and os.fork():
            os._exit(0)
        while is_orphan and os.getppid() == parent:
            time.sleep(0.001)
        number = 0
        try:
            do()
        except OSError as problem:
            number = problem.errno or 0
        os.write(writer, bytes([number]))
        os._exit(0)
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


_ATTEMPTS: Mapping[str, Callable[[], object]] = {
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
    "execute": lambda: subprocess.run(["/bin/true"], check=True),
}


class _Nosy:
    longest = 1

    def __call__(self, peeked: Any) -> Verdict:
        for name, attempt in _ATTEMPTS.items():
            try:
                attempt()
                what = "done"
            except OSError as problem:
                what = errno.errorcode[problem.errno or 0]
            _log.info("tried {name}: {what}", name=name, what=what)
        _log.info("tried all")
        return Verdict.MATCH


nosy = PlainMatcher("nosy", "any client", _Nosy())
