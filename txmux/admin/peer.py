"""Tells workers apart from other clients of a UNIX socket, by a resource limit (getrlimit(2)) that all descendants of the starter have.

proc(5) may hide any process: those of other user namespaces, such as other processes of a unit with ``PrivateUsers=``, and any that wants
to be hidden. Those of this process's own user and group can be asked for their limits all the same, and a process without privileges
cannot raise a hard one again. The limits of others are in proc(5), or hidden; then those of this user are taken for workers.
"""

import errno
import os
import re
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from txmux.net.namespaces import known_group, known_user

_PEER_PIDFD = 77
"""``SO_PEERPIDFD``, since Linux 6.5. Without, another process may have got the ID of one that has connected and ended."""
_PEER_GROUPS = 59
"""``SO_PEERGROUPS``, since Linux 4.13."""
_GROUPS_ROOM = 1024  # bytes, the most that Python passes
MARK = 10
"""``RLIMIT_LOCKS``, which limits nothing since Linux 2.4.25."""
_SHOWN = re.compile(rb"^Max file locks +\S+ +(\S+)", re.MULTILINE)


def mark_workers() -> None:
    """Mark what this process, the starter, will start."""
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel that only resembles Linux, which has no sandbox either
            resource.setrlimit(MARK, (0, 0))


def is_worker(client: socket.socket, pid: int, uid: int) -> bool:
    """Return whether the peer is a worker, or a process that one has started; also if it has ended, or cannot be told from one.

    Args:
        client: The connection of the peer.
        pid: The process that has connected, by ``SO_PEERCRED``; 0 if it is outside of this process's namespace.
        uid: Its user then, as `known_user` gives it.
    """
    if sys.platform != "linux" or not pid:
        return False
    try:
        held = client.getsockopt(socket.SOL_SOCKET, _PEER_PIDFD)
    except OSError as problem:
        return problem.errno != errno.ENOPROTOOPT or _is_marked(pid, uid)
    try:
        is_marked = _is_marked(pid, uid)
        with suppress(PermissionError):
            signal.pidfd_send_signal(held, 0)  # whether the ID was still its own
    except ProcessLookupError:
        return True
    finally:
        os.close(held)
    return is_marked


def _is_marked(pid: int, uid: int) -> bool:
    try:
        return resource.prlimit(pid, MARK)[1] == 0 or _is_of_older_starter(pid)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, or one of another group
        pass
    with suppress(OSError):
        if shown := _SHOWN.search(Path(f"/proc/{pid}/limits").read_bytes()):
            return shown[1] == b"0" or _is_of_older_starter(pid)
    return uid == known_user(os.geteuid())


def _is_of_older_starter(pid: int) -> bool:
    """Return whether a starter has forked it; during an upgrade, that of a version that marked nothing may have."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return Path(f"/proc/{int(fields[1])}/comm").read_bytes() == b"txmux: starter\n"
    return False


def groups_of(client: socket.socket, group: int) -> frozenset[int]:
    """Return the groups that the process had when it connected; of one with more than 256, only its first one, `group`.

    The kernel has kept them with the connection, so that no other process can have got its ID, as by proc(5).
    """
    packed = b""
    with suppress(OSError):
        packed = client.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _GROUPS_ROOM)
    groups = struct.unpack(f"{len(packed) // 4}I", packed)
    return frozenset({group, *map(known_group, groups)})
