"""Makes sockets non-blocking in a process whose filter of system calls lets no socket block again."""

import fcntl
import os
import socket

_FOREVER = 2.0**20
"""Seconds: twelve days; poll(2) takes at most 24."""


def keep_nonblocking() -> None:
    """Have Python's sockets use ``fcntl(F_SETFL)``, of which the filter sees the flags, in place of ``ioctl(FIONBIO)``.

    A socket that is to block again waits by poll(2), in Python, as one with a timeout does.
    """
    set_own = socket.socket.settimeout

    def settimeout(sock: socket.socket, timeout: float | None) -> None:
        try:
            set_own(sock, _FOREVER if timeout is None else timeout)
        except PermissionError:  # the ioctl, after the timeout has been set
            fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, os.O_NONBLOCK)

    def setblocking(sock: socket.socket, flag: bool) -> None:  # noqa: FBT001 - the socket module's signature
        settimeout(sock, None if flag else 0.0)

    socket.socket.settimeout = settimeout  # type: ignore[method-assign,assignment]
    socket.socket.setblocking = setblocking  # type: ignore[method-assign,assignment]
