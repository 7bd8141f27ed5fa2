"""Has a port of Twisted's ask whether there is room before it accepts, as a `SocketPort` does."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix

from txmux.net.sockets.descriptors import AT_ONCE
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.shortage import Pause
from txmux.net.sockets.spare import SparingServer, SparingUNIXServer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort

    from txmux.net.sockets.descriptors import Descriptors


_SPARING: dict[Any, Any] = {tcp.Server: SparingServer, unix.Server: SparingUNIXServer}


def gate(port: IListeningPort, reactor: Any, descriptors: Descriptors) -> None:
    """Make a port leave clients in its queue while there is no room for them.

    By itself it would accept them to close them again.

    Args:
        port: One of Twisted's own, which listens already. What is not made of a listening socket stays as it is.
        reactor: In which it is.
        descriptors: Tell whether there is room.
    """
    made: Any = port
    if getattr(made, "transport", None) in _SPARING:
        made.transport = _SPARING[made.transport]
    if hasattr(port, "numberAccepts") and hasattr(port, "sessionno"):
        _Gate(port, reactor, descriptors)


class _Gate:
    """Stands before one port, whose methods it replaces."""

    def __init__(self, port: Any, reactor: Any, descriptors: Descriptors) -> None:
        self._port = port
        self._descriptors = descriptors
        self._pause = Pause(reactor, descriptors, _name_of(port), port.fileno, port.startReading)
        self._read, self._stop_reading = port.doRead, port.stopReading
        self._start_reading, self._lost = port.startReading, port.connectionLost
        port.doRead = self._do_read
        port.stopReading, port.startReading = self._cancel_and_stop, self._cancel_and_start
        port.connectionLost = self._port_lost

    def _do_read(self) -> Any:
        try:
            return self._read_if_room()
        except Exception as problem:  # noqa: BLE001 - out of memory, even to log that: the reactor would close the port
            if isinstance(problem, MemoryError):
                MEMORY.lacks()
            return None

    def _read_if_room(self) -> Any:
        port, room = self._port, self._descriptors.room()
        if not room:
            self._wait(os.strerror(errno.EMFILE))
            return None
        if not MEMORY.can_grow():  # a reactor may take a connection in by half
            self._wait(None)
            return None
        port.numberAccepts = min(port.numberAccepts, room, AT_ONCE)
        before = port.sessionno
        why = self._read()
        if port.connected and (self._pause.is_short or port.sessionno == before):
            if not self._pause.has_clients():
                self._pause.enough()
            elif port.sessionno == before:  # something else is lacking
                self._wait(os.strerror(errno.ENOBUFS))
        return why

    def _wait(self, shortage: str | None) -> None:
        self._pause.begin(shortage)
        self._stop_reading()

    def _cancel_and_stop(self) -> None:
        self._pause.cancel()
        self._stop_reading()

    def _cancel_and_start(self) -> None:
        self._pause.cancel()
        self._start_reading()

    def _port_lost(self, reason: Any) -> None:
        self._pause.end()
        self._lost(reason)


def _name_of(port: Any) -> str:
    host = port.getHost()
    number = getattr(host, "port", None)
    return str(getattr(host, "name", port)) if number is None else f"port {number}"
