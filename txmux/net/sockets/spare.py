"""Twisted's transports, each of which ends its own connection when there is no memory to serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp, unix
from twisted.internet.posixbase import PosixReactorBase
from typing_extensions import override

from txmux.net.sockets.memory import MEMORY, OUT_OF_MEMORY

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class _Sparing(tcp.Connection):
    """Reads and writes while there is memory."""

    @override
    def doRead(self) -> Any:
        try:
            if MEMORY.is_enough():
                return super().doRead()
            MEMORY.note_ended()
        except MemoryError:
            MEMORY.lacks(ended=1)
        return self._give_up()

    @override
    def doWrite(self) -> Any:
        try:
            return super().doWrite()
        except MemoryError:
            MEMORY.lacks(ended=1)
            return self._give_up()

    @override
    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        except MemoryError:
            MEMORY.lacks()
            tcp.Connection.connectionLost(self, reason)  # unless the socket has been closed before

    def _give_up(self) -> Any:
        self.connectionLost(OUT_OF_MEMORY)
        return main.CONNECTION_LOST  # the reactor is not to write, either


class SparingServer(_Sparing, tcp.Server):
    """A client's connection over TCP."""


class SparingUNIXServer(_Sparing, unix.Server):
    """A client's connection over a UNIX socket."""


class _SparingClient(_Sparing, tcp.Client):
    pass


class _SparingUNIXClient(_Sparing, unix.Client):
    pass


class _TCPConnector(tcp.Connector):
    @override
    def _makeTransport(self) -> Any:
        return _SparingClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _UNIXConnector(unix.Connector):
    @override
    def _makeTransport(self) -> Any:
        return _SparingUNIXClient(self.address, self, self.reactor, self.checkPID)


def connect_tcp(
    reactor: Any,
    host: str,
    port: int,
    factory: Any,
    timeout: float,
    bind_address: tuple[str, int] | None,
) -> Any:
    """Connect to a server, as the reactor's ``connectTCP`` does."""
    if not isinstance(reactor, PosixReactorBase):
        return reactor.connectTCP(host, port, factory, timeout, bind_address)
    connector = _TCPConnector(host, port, factory, timeout, bind_address, reactor)
    connector.connect()
    return connector


def connect_unix(reactor: Any, path: str, factory: Any, timeout: float) -> Any:
    """Connect to a server, as the reactor's ``connectUNIX`` does."""
    if not isinstance(reactor, PosixReactorBase):
        return reactor.connectUNIX(path, factory, timeout)
    connector = _UNIXConnector(path, factory, timeout, reactor, False)  # noqa: FBT003 - no look at the lock of a process
    connector.connect()
    return connector
