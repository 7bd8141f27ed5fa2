"""Sockets that the reactor serves itself: Twisted's ports and transports, which spare descriptors and memory as ours do."""

import errno
import os
import socket
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.net.sockets.descriptors import AT_ONCE, AcceptPause, Descriptors
from txmux.net.sockets.memory import MEMORY, OUT_OF_MEMORY
from txmux.net.sockets.transport import CLOSED, LOST

_STILL_READ = errno.EAGAIN, errno.ENOBUFS, errno.EPIPE
"""Errors of writing after which a read still tells a reset from an end: with EPIPE the end has come before."""

_MOST_LEFT = 8 * 1024 * 1024  # bytes read after writing has failed: more than a queue holds


class _Sparing(tcp.Connection):
    _broken = False  # writing has failed: the kernel reports the error once, so a read would take the reset for an end
    _is_reading = False
    _host: Any = None
    _peer: Any = None

    @override
    def write(self, data: bytes) -> None:
        # At once: Twisted waits for the socket to be writable, which takes three system calls more.
        if self.connected and data and not self.has_to_write():
            sent = 0
            try:
                sent = self.socket.send(data)
            except OSError as problem:
                self._broken = problem.errno not in _STILL_READ
            except MemoryError:
                pass
            if sent == len(data):
                return
            data = data[sent:]
        # The reactor reports what failed: the caller is in the midst of its work.
        super().write(data)

    def has_to_write(self) -> bool:
        waiting = self.dataBuffer or self._tempDataBuffer or self.TLS
        ending = self.disconnecting or self._writeDisconnecting or self._aborting
        return bool(waiting or ending)

    @override
    def getHost(self) -> Any:
        if self._host is None and self.connected:
            self._host = super().getHost()
        return self._host or super().getHost()

    @override
    def getPeer(self) -> Any:
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer

    @override
    def readConnectionLost(self, reason: Failure) -> None:
        if self._broken:
            self.connectionLost(LOST)
        else:
            super().readConnectionLost(reason)

    @override
    def doRead(self) -> Any:
        try:
            if MEMORY.is_enough():
                return super().doRead()
            MEMORY.count_ended()
        except MemoryError:
            MEMORY.report_shortage(ended=1)
        return self._give_up()

    @override
    def doWrite(self) -> Any:
        try:
            lost = super().doWrite()
        except MemoryError:
            MEMORY.report_shortage(ended=1)
            return self._give_up()
        if lost is main.CONNECTION_LOST:
            self._read_rest()
        return lost

    def _read_rest(self) -> None:
        """Read what the peer had sent before writing failed, as far as it is wanted: nothing comes after that."""
        for _ in range(_MOST_LEFT // self.bufferSize):
            if not self._is_reading or self.doRead():
                return

    @override
    def startReading(self) -> None:
        self._is_reading = True
        super().startReading()

    @override
    def stopReading(self) -> None:
        self._is_reading = False
        super().stopReading()

    @override
    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        except MemoryError:
            MEMORY.report_shortage()
            tcp.Connection.connectionLost(self, reason)  # unless the socket has been closed before

    def _give_up(self) -> Any:
        self.connectionLost(OUT_OF_MEMORY)
        return main.CONNECTION_LOST  # the reactor is not to write, either


_SPARING: dict[Any, Any] = {
    kind: type(f"Sparing{kind.__name__}", (_Sparing, kind), {})
    for kind in (tcp.Server, unix.Server, tcp.Client, unix.Client)
}


def half_close(transport: Any) -> None:
    """Half-close a transport: at once, with a call of its protocol, unless bytes have to be sent before."""
    if not isinstance(transport, _Sparing) or transport.has_to_write():
        transport.loseWriteConnection()
    elif transport.connected:
        transport._writeDisconnecting = transport._writeDisconnected = True
        transport._closeWriteConnection()


def close(transport: Any) -> None:
    """Close a transport, as `half_close`."""
    if isinstance(transport, _Sparing) and transport.connected and not transport.has_to_write():
        transport.connectionLost(CLOSED)
    else:
        transport.loseConnection()


class _TCPConnector(tcp.Connector):
    @override
    def _makeTransport(self) -> Any:
        make = _SPARING[tcp.Client]
        return make(self.host, self.port, self.bindAddress, self, self.reactor)


class _UNIXConnector(unix.Connector):
    @override
    def _makeTransport(self) -> Any:
        return _SPARING[unix.Client](self.address, self, self.reactor, self.checkPID)


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


def throttle_accepts(port: IListeningPort, reactor: Any, descriptors: Descriptors) -> None:
    """Make one of Twisted's ports leave clients in its queue while there is no room, instead of accepting and closing them."""
    made: Any = port
    if getattr(made, "transport", None) in _SPARING:
        made.transport = _SPARING[made.transport]
    if hasattr(port, "numberAccepts") and hasattr(port, "sessionno"):
        pause_accepts(port, reactor, descriptors)


def pause_accepts(port: Any, reactor: Any, descriptors: Descriptors) -> None:
    _Gate(port, reactor, descriptors)


class _Gate:
    def __init__(self, port: Any, reactor: Any, descriptors: Descriptors) -> None:
        self._port = port
        self._descriptors = descriptors
        self._pause = AcceptPause(
            reactor, descriptors, _name_of(port), port.fileno, port.startReading
        )
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
                MEMORY.report_shortage()
            return None

    def _read_if_room(self) -> Any:
        port, room = self._port, self._descriptors.room()
        if port.connected and not port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return (
                None  # another process has shut it down, which the reactor notices by the hang-up
            )
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
                self._pause.queue_emptied()
            elif port.sessionno == before:  # the system lacks something else
                self._descriptors.count_again()
                lacking = errno.ENOBUFS if self._descriptors.room() else errno.EMFILE
                self._wait(os.strerror(lacking))
        return why

    def _wait(self, shortage: str | None) -> None:
        self._pause.start_pause(shortage)
        self._stop_reading()

    def _cancel_and_stop(self) -> None:
        self._pause.cancel_pause()
        self._stop_reading()

    def _cancel_and_start(self) -> None:
        self._pause.cancel_pause()
        self._start_reading()

    def _port_lost(self, reason: Any) -> None:
        self._pause.port_closed()
        self._lost(reason)


def _name_of(port: Any) -> str:
    host = port.getHost()
    number = getattr(host, "port", None)
    name = getattr(host, "name", port)
    shown = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return shown if number is None else f"port {number}"


class SharedUNIXPort(unix.Port):
    """Leaves the mode, the backlog and the file of the socket to the process that opened it; works on a duplicate."""

    _shouldShutdown = False

    def __init__(self, opened: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(opened.getsockname(), factory, reactor=reactor)
        self._factory = factory
        self.socket = opened.dup()

    @override
    def startListening(self) -> None:
        self._factory.doStart()
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as Twisted's own ports do
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)  # that of `unix.Port` removes the file
