"""Answers the system calls that the sandbox of workers refuses, and reports them (seccomp_unotify(2)).

The starter does so: it has no reactor and reads nothing of clients, so that a worker never waits for long. Without it, as when it has
been killed, the kernel refuses these calls by ``ENOSYS``.
"""

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs

from txmux.classes import define
from txmux.processes.worker import seccomp
from txmux.processes.worker.calls import WORD, rules_for
from txmux.processes.worker.seccomp import MACHINES

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
"""``SECCOMP_IOCTL_NOTIF_RECV``, ``SECCOMP_IOCTL_NOTIF_SEND``."""
_NOTIFICATION = struct.Struct("QII" + "iIQ6Q")  # struct seccomp_notif, with struct seccomp_data
_ANSWER = struct.Struct("QqiI")  # struct seccomp_notif_resp
_MOST_REPORTED = 64
"""Different calls of one worker, which could make up any number of them."""


def restrict_calls(listener_to: socket.socket | None) -> None:
    """Confine this process to the calls of workers; `listener_to` is from `RefusedCalls.expect`. Raises `OSError`."""
    listener = seccomp.restrict_calls()
    if listener is not None:
        with suppress(OSError):  # the starter has ended
            if listener_to is not None:
                socket.send_fds(listener_to, [b"x"], [listener])
        # It could be used to make a refused call all the same.
        os.close(listener)


@define(eq=False)
class _RefusingWorker:
    """A worker: the socket by which its listener comes, then that."""

    number: int
    opened: socket.socket | int
    reported: set[str] = attrs.field(factory=set)

    def close(self) -> None:
        if isinstance(self.opened, int):
            os.close(self.opened)
        else:
            self.opened.close()


class RefusedCalls:
    """Answers for all workers of a starter.

    Args:
        poll: What the starter waits for.
        report: Called once for each call of a worker, with the worker's number and the call.
    """

    def __init__(self, poll: select.poll, report: Callable[[int, str], object]) -> None:
        self._poll = poll
        self._report = report
        self._sources: dict[int, _RefusingWorker] = {}

    def expect(self, number: int) -> socket.socket:
        """Return a socket over which a worker sends the listener of its filter."""
        own, other = socket.socketpair()
        self._add(_RefusingWorker(number, own), own.fileno())
        return other

    def close(self) -> None:
        """Close all, as a forked worker has to: it could let the calls of others pass."""
        while self._sources:
            self._sources.popitem()[1].close()

    def _add(self, source: _RefusingWorker, descriptor: int) -> None:
        self._sources[descriptor] = source
        self._poll.register(descriptor, select.POLLIN)

    def serve(self, ready: Mapping[int, int]) -> None:
        """Answer what has come, by the events of descriptors."""
        for descriptor in ready.keys() & self._sources.keys():
            source = self._sources[descriptor]
            if not isinstance(source.opened, int):
                self._remove(descriptor)
                self._take(source.number, source.opened)
                source.close()
            # Without a notification, to ask for one would block.
            elif ready[descriptor] & select.POLLIN:
                self._answer(source.opened, source)
            else:  # the worker has ended
                self._remove(descriptor)
                source.close()

    def _remove(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._sources[descriptor]

    def _take(self, number: int, connection: socket.socket) -> None:
        with suppress(OSError):
            _, received, _, _ = socket.recv_fds(connection, 1, 1)
            for listener in received:
                os.set_inheritable(listener, False)  # noqa: FBT003 - its name does not take it
                self._add(_RefusingWorker(number, listener), listener)

    def _answer(self, listener: int, source: _RefusingWorker) -> None:
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notification)
            number, _, _, *call = _NOTIFICATION.unpack(notification)
            self.respond(listener, number)
        except OSError:  # the thread has ended
            return
        text = describe(*call)
        if text not in source.reported and len(source.reported) < _MOST_REPORTED:
            # An answer must not wait for the supervisor, nor depend on it; the next such call reports it.
            with suppress(OSError):
                self._report(source.number, text)
                source.reported.add(text)

    def respond(self, listener: int, number: int) -> None:
        answer = bytearray(_ANSWER.pack(number, 0, -errno.EPERM, 0))
        fcntl.ioctl(listener, _SEND, answer)


def describe(number: int, architecture: int, _: int, *arguments: int) -> str:
    """Return a system call as text: its number and, where known, its name, with the arguments by which it was refused."""
    numbers, own = MACHINES[os.uname().machine]
    names = {at: name for name, at in numbers.items()} if architecture == own else {}
    name = names.get(number & WORD)
    if name is None:
        return f"{number & WORD} of architecture {architecture:#x}"
    counts = {given.argument for rule in dict(rules_for(0)).get(name, ()) for given in rule[0]}
    if not counts:
        return f"{number} ({name})"
    shown = (str(arguments[at] & WORD) if at in counts else "…" for at in range(max(counts) + 1))
    return f"{number} ({name}: {', '.join(shown)})"
