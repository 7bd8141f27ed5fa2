"""The files of listening UNIX sockets."""

import errno
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from txmux.files import held_folder, require_proc
from txmux.net.namespaces import UNKNOWN, known_group, known_user, user_text

_CREDENTIALS = struct.Struct("iII")
"""``struct ucred`` of unix(7): process, user and group."""


def credentials_of(opened: socket.socket) -> tuple[int, int, int] | None:
    """Return whose a UNIX socket is (unix(7), SO_PEERCRED); ``None`` if the system does not say.

    Of a connection, it is the process at its other end: that which has connected, or called `listen`. Of a listening socket, it is
    that which has called `listen`, so a connection to it has the same. A user or group without a number in this user namespace is
    `UNKNOWN`.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    packed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, group = _CREDENTIALS.unpack(packed)
    return process, known_user(user), known_group(group)


def owned_by_another(connected: socket.socket, owner: int) -> str:
    """Return why a server is not this user's, whatever the path of its socket leads to now; nothing if it is."""
    _, user, _ = credentials_of(connected) or (0, UNKNOWN, 0)
    return (
        ""
        if user == owner
        else f"its server is of {user_text(user)}, and not of {user_text(owner)}"
    )


def bind(opened: socket.socket, path: Path, mode: int) -> None:
    """Bind a UNIX socket to a path; a stale socket there, on which no process listens, is removed before.

    For root, no link of another user's on the way is followed. Where another user could still make one,
    `socket.getsockname` names the file by its folder's descriptor (proc_pid_fd(5)).
    """
    with held_folder(path) as folder:
        name = _name(folder, path)
        _clear(folder, path.name, name, opened.type)
        # The file has its mode from its creation: a later chmod could be redirected to another file.
        before = os.umask(~mode & 0o777)
        try:
            opened.bind(name)
        finally:
            os.umask(before)


def open_listening(
    path: Path, mode: int, backlog: int, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """Open a UNIX socket that listens at a path and does not block; see `bind`."""
    opened = open_bound(path, mode, kind)
    opened.listen(backlog)
    return opened


def open_bound(path: Path, mode: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, kind)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        bind(opened, path, mode)
    except BaseException:
        opened.close()
        raise
    return opened


def _name(folder: int, path: Path) -> str:
    if os.geteuid() or sys.platform != "linux":
        return str(path)
    way = path.parent.resolve()
    if all(map(_is_roots, (way, *way.parents))) and os.path.samestat(way.stat(), os.fstat(folder)):
        return str(way / path.name)
    require_proc()
    return f"/proc/self/fd/{folder}/{path.name}"


def _is_roots(folder: Path) -> bool:
    """Return whether only root can put another folder in the place of one in it that is root's."""
    status = folder.stat()
    return status.st_uid == 0 and (
        not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)
    )


def _clear(folder: int, file: str, name: str, kind: int) -> None:
    try:
        status = os.stat(file, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(
            errno.EEXIST,
            "something other than a socket is there: move it away or choose another path",
        )
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(0)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(file, dir_fd=folder)
            return
        except OSError as problem:
            # Its queue is full, or it is of another type.
            if problem.errno not in {errno.EAGAIN, errno.EPROTOTYPE}:
                raise
    raise OSError(
        errno.EADDRINUSE, "another program listens there: stop that one or choose another path"
    )
