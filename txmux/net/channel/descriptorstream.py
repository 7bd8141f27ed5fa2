"""A stream of bytes to another process, some of which have descriptors with them."""

import array
import errno
import os
import socket
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import attrs
from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure

from txmux.classes import define

MOST = 253  # descriptors that one system call takes (SCM_MAX_FD, unix(7))
_AT_ONCE = 2**18  # bytes of one read
_REST = 8  # reads of what a socket holds, at most
RETRY = 0.02
"""Seconds until descriptors are sent again after ETOOMANYREFS: as many of this user as one process may have open are on their way
to processes that have not taken them yet (unix(7)), as when many workers start."""
_ANCILLARY = socket.CMSG_SPACE(MOST * array.array("i").itemsize)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Duplicate:
    """A duplicate of a descriptor, closed with the last message that waits with it."""

    number = -1

    def __init__(self, descriptor: int) -> None:
        self.number = os.dup(descriptor)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


_waiting_sockets: WeakValueDictionary[tuple[int, int], _Duplicate] = WeakValueDictionary()


def _duplicate(descriptor: int) -> _Duplicate:
    """Duplicate a descriptor; a socket once for all messages that wait with it, since each worker gets all that listen."""
    status = os.fstat(descriptor)
    if not stat.S_ISSOCK(status.st_mode):
        return _Duplicate(descriptor)
    key = status.st_dev, status.st_ino
    made = _waiting_sockets.get(key) or _Duplicate(descriptor)
    return _waiting_sockets.setdefault(key, made)


@define
class _Unsent:
    """Bytes that the other process has not taken yet, with the descriptors of the first of them."""

    data: memoryview
    descriptors: list[_Duplicate] = attrs.Factory(list)


class DescriptorStream(FileDescriptor):
    """A transport over one of a pair of UNIX sockets. What the system takes at once is sent at once.

    Descriptors go at most `MOST` with a byte (SCM_RIGHTS, unix(7)), and arrive in the same groups: if there are more, all but
    the last group have `MOST`.

    Args:
        protocol: Also has ``descriptors_received(descriptors)``, called with those that came with the next bytes, fewer than
            were sent if this process has reached its limit; and ``cut_off()``, called when nothing more is sent, and the
            connection is closed after all that waits.

    Attributes:
        is_held_up: Whether all that waits is behind descriptors for which the system has no room (``ETOOMANYREFS``).
    """

    def __init__(self, reactor: Any, end: socket.socket, protocol: IProtocol) -> None:
        super().__init__(reactor)
        self._any_reactor = reactor
        self._retry: IDelayedCall | None = None
        end.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self.socket = end
        self._waiting: deque[_Unsent] = deque()
        self.backlog = 0
        self.fileno = end.fileno  # type: ignore[method-assign]
        self.protocol: Any = protocol
        self._is_aborting = self._is_cut_off = False
        self.is_held_up = False
        self.connected = 1
        protocol.makeConnection(self)
        self.startReading()

    def write(self, data: bytes) -> None:
        self.send(data)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send bytes, at least one for each `MOST` descriptors, and duplicates of these with the first of them."""
        if not self.connected or self._is_aborting:
            return
        view = memoryview(data)
        groups = [descriptors[start : start + MOST] for start in range(0, len(descriptors), MOST)]
        for group in groups[:-1]:
            self._send(view[:1], group)
            view = view[1:]
        self._send(view, groups[-1] if groups else ())

    def _send(self, data: memoryview, descriptors: Sequence[int]) -> None:
        if self._is_cut_off:
            return
        if not self._waiting:
            try:
                sent = self.send_now(data, descriptors)
            except OSError:
                sent = 0  # the next try finds the error
            if sent:
                data, descriptors = data[sent:], ()
        if data:
            waiting = _Unsent(data)
            try:
                waiting.descriptors.extend(map(_duplicate, descriptors))
            except OSError:  # the limit is reached; without descriptors the message means nothing
                self._is_cut_off = True
                self.protocol.cut_off()
                self.loseConnection()
                return
            self._waiting.append(waiting)
            self.backlog += len(data)
            self.startWriting()

    def send_now(self, data: memoryview, descriptors: Sequence[int]) -> int:
        if not descriptors:
            return self.socket.send(data)
        return socket.send_fds(self.socket, [data], descriptors)

    def doWrite(self) -> BaseException | None:
        while self._waiting:
            first = self._waiting[0]
            try:
                sent = self.send_now(
                    first.data, [descriptor.number for descriptor in first.descriptors]
                )
            except BlockingIOError:
                return None
            except (BrokenPipeError, ConnectionResetError):
                self._forget()  # what the other process sent before its end is still to be read
                break
            except OSError as problem:
                if problem.errno != errno.ETOOMANYREFS:
                    return main.CONNECTION_LOST
                self.stopWriting()
                self._cancel_retry()
                self.is_held_up = True
                self._retry = self._any_reactor.callLater(RETRY, self.startWriting)
                return None
            self.is_held_up = False
            first.data, first.descriptors = first.data[sent:], []
            self.backlog -= sent
            if first.data:
                return None
            self._waiting.popleft()
        self.stopWriting()
        return main.CONNECTION_DONE if self.disconnecting else None

    def doRead(self) -> BaseException | None:
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(_AT_ONCE, _ANCILLARY, _CLOEXEC)
        except (BlockingIOError, MemoryError):
            return None  # Python allocates memory before the call: nothing is lost
        except OSError:
            return main.CONNECTION_LOST
        received = array.array("i")
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received.frombytes(rights[: len(rights) - len(rights) % received.itemsize])
        if received or flags & socket.MSG_CTRUNC:
            for descriptor in () if _CLOEXEC else received:
                os.set_inheritable(descriptor, False)  # noqa: FBT003 - its name does not take it
            self.protocol.descriptors_received(received.tolist())
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def read_rest(self) -> None:
        """Read what has come, as far as a socket holds it, before this end closes."""
        for _ in range(_REST):
            if not self.connected or self._is_aborting or not _has_data(self.socket):
                return
            self.doRead()

    def _cancel_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()

    def _forget(self) -> None:
        self._waiting.clear()
        self.backlog = 0

    def abortConnection(self) -> None:
        if self.connected and not self._is_aborting:
            self._is_aborting = True
            self.stopReading()
            self.stopWriting()
            self._any_reactor.callLater(0, self.connectionLost, Failure(main.CONNECTION_LOST))

    def connectionLost(self, reason: Failure) -> None:
        if not self.connected:
            return
        super().connectionLost(reason)
        self._forget()
        self._cancel_retry()
        self.socket.close()
        self.protocol.connectionLost(reason)


def _has_data(end: socket.socket) -> bool:
    try:
        return bool(end.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
