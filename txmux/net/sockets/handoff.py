"""Hands a connected socket to another process, with a message about it (unix(7), SCM_RIGHTS)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection
from typing import Literal

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.classes import define
from txmux.net.namespaces import UNKNOWN, user_text
from txmux.net.sockets.plainsocket import open_socket
from txmux.net.sockets.poller import READ, Poller
from txmux.net.sockets.unixpath import credentials_of

TAKEN = b"taken"  # the answer of the other process when it has the socket
MOST = 65536  # bytes that a message has at most
Failure = Literal["connect-refused", "connect-timeout", "not-taken"]
"""Why a socket was not taken, in the words of the access log."""

_ROOT = 0
_AGAIN = 0.02  # seconds between two tries where a queue is full
_KIND = int(socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
_LATER = {errno.EAGAIN, errno.ETOOMANYREFS}  # the system allows no further sockets on their way


@define(eq=False)
class SocketHandoff:
    """Hands one socket, which stays the caller's to close, to the ``SOCK_SEQPACKET`` server at a path.

    The server has to be of root, of the user of this process, or of one of these users.

    Attributes:
        is_sent: Whether the other process may have it, so that it must not be read or changed here.
    """

    _poller: Poller
    _clock: IReactorTime
    _path: str
    _users: Collection[int]
    _given: socket.socket
    _message: bytes
    _on_taken: Callable[[], None]
    _on_failed: Callable[[Failure, str], None]
    _socket: socket.socket = attrs.field(init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _retry: IDelayedCall | None = attrs.field(default=None, init=False)
    _is_watched: bool = attrs.field(default=False, init=False)
    is_sent: bool = attrs.field(default=False, init=False)

    def start(self, timeout: float) -> None:
        """Start; may be finished before it returns. The other process must confirm within `timeout` seconds."""
        self._socket = open_socket(socket.AF_UNIX, _KIND)
        self._deadline = self._clock.callLater(timeout, self._too_late)
        self._connect()

    def cancel(self) -> None:
        for timer in (self._deadline, self._retry):
            if timer is not None:
                timer.cancel()
        self._deadline = self._retry = None
        if self._is_watched:
            self._is_watched = False
            self._poller.closing(self._socket.fileno())
        self._socket.close()

    def _connect(self) -> None:
        self._retry = None
        number = self._socket.connect_ex(self._path)
        if number == errno.EAGAIN:
            self._retry = self._clock.callLater(_AGAIN, self._connect)
        elif number:
            self._fail("connect-refused", os.strerror(number))
        elif why := self._why_not():
            self._fail("connect-refused", why)
        else:
            self._send()

    def _why_not(self) -> str:
        """Return why a server may not have the socket: where others may write to the folder, anybody's may listen at the path."""
        _, user, _ = credentials_of(self._socket) or (0, UNKNOWN, 0)
        if user in {_ROOT, os.geteuid(), *self._users}:
            return ""
        do = f"; if that may have clients, write user={user} after the path" if user >= 0 else ""
        return f"its server is of {user_text(user)}{do}"

    def _send(self) -> None:
        self._retry = None
        try:
            socket.send_fds(self._socket, [self._message], [self._given.fileno()])
        except OSError as problem:
            if problem.errno in _LATER:
                self._retry = self._clock.callLater(_AGAIN, self._send)
            else:
                self._fail("connect-refused", problem.strerror or str(problem))
            return
        self.is_sent = True
        try:
            self._poller.watch(self._socket.fileno(), READ, self._ready)
            self._is_watched = True
        except OSError as problem:
            self._fail("not-taken", problem.strerror or str(problem))

    def _ready(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        why = "its server closed the connection"
        try:
            answer = self._socket.recv(len(TAKEN) + 1)
        except BlockingIOError:
            return
        except OSError as problem:
            answer, why = b"", problem.strerror or str(problem)
        if answer == TAKEN:
            self.cancel()
            self._on_taken()
        else:
            self._fail("not-taken", why if not answer else "its server answered something else")

    def _too_late(self) -> None:
        self._deadline = None
        if self.is_sent:
            self._fail("not-taken", "its server did not answer")
        else:
            self._fail("connect-timeout", "its queue is full")

    def _fail(self, reason: Failure, why: str) -> None:
        self.cancel()
        self._on_failed(reason, why)
