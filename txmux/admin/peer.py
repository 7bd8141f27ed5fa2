"""Tells workers apart from other clients of a UNIX socket, by proc(5) of Linux."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from txmux.net.namespaces import known_group

_PEER_PIDFD = 77
"""``SO_PEERPIDFD``, since Linux 6.5. Without, another process may have got the ID of one that has connected and ended."""
_PEER_GROUPS = 59
"""``SO_PEERGROUPS``, since Linux 4.13."""
_GROUPS_ROOM = 1024  # bytes, the most that Python passes
_STARTER = b"txmux: starter"
_MOST_LOOKS = 5
"""As many are needed if processes above the peer end meanwhile."""


def is_worker(client: socket.socket, pid: int) -> bool:
    """Return whether the peer is a worker, or a process that one has started; also if it has ended, or hides itself.

    Workers and all that they start stay below the starter, which adopts orphans and alone can change its name.

    Args:
        client: The connection of the peer.
        pid: The process that has connected, by ``SO_PEERCRED``.
    """
    if not os.path.exists("/proc/self/stat"):  # noqa: PTH110 - for each client
        return False
    with ExitStack() as opened, suppress(OSError):
        is_peer: Callable[[], bool] = lambda: True  # noqa: E731 - there is another one
        try:
            held = client.getsockopt(socket.SOL_SOCKET, _PEER_PIDFD)
        except OSError as problem:
            if problem.errno != errno.ENOPROTOOPT:
                raise
        else:
            opened.callback(os.close, held)
            pid = _held_pid(held)
            is_peer = lambda: _held_pid(held) == pid  # noqa: E731 - as above
        for _ in range(_MOST_LOOKS):
            with suppress(FileNotFoundError, ProcessLookupError):
                return _descends(pid, is_peer)
    return True


def groups_of(client: socket.socket, group: int) -> frozenset[int]:
    """Return the groups that the process had when it connected; of one with more than 256, only its first one, `group`.

    The kernel has kept them with the connection, so that no other process can have got its ID, as by proc(5).
    """
    packed = b""
    with suppress(OSError):
        packed = client.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _GROUPS_ROOM)
    groups = struct.unpack(f"{len(packed) // 4}I", packed)
    return frozenset({group, *map(known_group, groups)})


def _held_pid(held: int) -> int:
    """Return the ID of a process by its descriptor; 0 if it is outside of this process's namespace."""
    with open(f"/proc/self/fdinfo/{held}", "rb") as file:  # noqa: PTH123 - for each client
        match = re.search(rb"^Pid:\t(\d+)$", file.read(), re.MULTILINE)
    if match is None:  # it has ended, and is -1
        raise ProcessLookupError
    return int(match[1])


def _descends(pid: int, is_still: Callable[[], bool]) -> bool:
    """Return whether a process is below a starter; `is_still` says whether it still has the ID. Raise `OSError` if that changes."""
    # Each folder stays that of one process, though another one may get its ID.
    with ExitStack() as opened:
        while pid not in (0, 1, os.getpid()):
            is_hidden = False
            try:
                folder = os.open(f"/proc/{pid}", os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, PermissionError):
                is_hidden, is_own = True, _is_of_this_user(pid)
            else:
                opened.callback(os.close, folder)
            if not is_still():
                raise ProcessLookupError
            if is_hidden:  # by ``hidepid`` of proc(5), which is for the processes of other users
                return is_own
            name, pid = _name_and_parent(folder)
            if name == _STARTER:
                return True
            is_still = partial(_has_parent, folder, pid)
    return False


def _is_of_this_user(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    return True


def _name_and_parent(folder: int) -> tuple[bytes, int]:
    with open(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:  # noqa: PTH123 - a descriptor
        before, _, after = file.read().rpartition(b") ")
    return before.partition(b" (")[2], int(after.split()[1])


def _has_parent(folder: int, pid: int) -> bool:
    return _name_and_parent(folder)[1] == pid
