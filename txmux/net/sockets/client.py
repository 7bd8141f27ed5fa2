"""Clients of literal addresses and UNIX sockets, without Deferreds or look-ups: connections, and one server's datagrams."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmux.classes import define
from txmux.net.sockets.memory import MEMORY, OUT_OF_MEMORY
from txmux.net.sockets.plainsocket import (
    EAGER,
    SocketOption,
    open_multipath,
    open_socket,
    reset_on_close,
    set_options,
)
from txmux.net.sockets.poller import READ, WRITE, Poller
from txmux.net.sockets.transport import SocketTransport, address_of, sockaddr
from txmux.net.sockets.unixpath import owned_by_another

OWN_PEER = "nothing listens there, and the connection was to itself"
"""Why a connection is refused whose local address is also that of its server.

A port of the range from which the system takes local ports can be the local port of a connection to it. If there is no listener,
that is a simultaneous open (RFC 9293, section 3.5) with itself, and succeeds.
"""

IN_USE = "all ports of all addresses in source are in use towards this server"
_NO_PORT = {errno.EADDRNOTAVAIL, errno.EADDRINUSE}
UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY}
_AGAIN = 0.02  # seconds between two tries at a UNIX socket whose queue is full
NONBLOCKING_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

_address_of = functools.lru_cache(maxsize=256)(address_of)  # servers are few


@functools.lru_cache(maxsize=1024)
def socket_name(kind: str, host: str, port: int, path: str) -> tuple[int, Any] | None:
    """Return the family and the address of a server, as ``socket.connect()`` takes it; ``None`` if that is to be looked up."""
    if kind == "unix":
        return socket.AF_UNIX, path
    if kind == "tcp" and isIPAddress(host):
        return socket.AF_INET, (host, port)
    if kind == "tcp" and isIPv6Address(host):
        return socket.AF_INET6, (host, port)
    return None


def is_own_peer(connected: socket.socket) -> bool:
    """Return whether a socket is connected to itself; see `OWN_PEER`."""
    with contextlib.suppress(OSError):  # it is not connected yet
        return bool(connected.getpeername() == connected.getsockname())
    return False


class Binding(Protocol):
    """The local address of a connection."""

    @property
    def tries(self) -> int: ...

    def bind(self, unbound: socket.socket, /) -> None: ...


def start_connecting(
    family: int,
    name: Any,
    options: Iterable[SocketOption],
    sources: Sequence[Binding] = (),
    *,
    is_multipath: bool = False,
) -> tuple[socket.socket, int, str]:
    """Open a socket and start to connect it, from the first of these sources that has a port left.

    Returns the socket, one of `UNDER_WAY` or the number of an error, and the text of that. Raises `OSError` if none can be opened.
    """
    open_new = open_multipath if is_multipath else open_socket
    for source in sources or (None,):
        for _ in range(1 if source is None else source.tries):
            connecting, why = open_new(family, NONBLOCKING_STREAM), ""
            try:
                set_options(connecting, options)
                if source is not None:
                    source.bind(connecting)
                number = connecting.connect_ex(name)
                if number in UNDER_WAY:
                    return connecting, number, ""
                is_in_use = number == errno.EADDRNOTAVAIL and source is not None
            except OSError as problem:
                number, why = problem.errno or errno.EINVAL, problem.strerror or str(problem)
                is_in_use = number == errno.EADDRINUSE
            why = IN_USE if is_in_use else why or os.strerror(number)
            if number not in _NO_PORT:
                return connecting, number, why
            connecting.close()
            if not is_in_use:  # it is not an address of this machine
                break
    return connecting, number, why


@define(eq=False, weakref_slot=False)
class SocketConnector:
    """Makes one connection for a client factory, which it notifies of the end as any reactor does.

    Args:
        name: The server, as ``socket.connect()`` takes it.
        is_multipath: Whether its connection is of Multipath TCP.
        owner: The user who has to be the owner of the server of a UNIX socket; ``None`` is any.
    """

    _poller: Poller
    _clock: IReactorTime
    _family: int
    _name: Any
    _factory: Any
    _is_multipath: bool = False
    _owner: int | None = None
    _socket: Any = attrs.field(default=None, init=False)
    _peer: Any = attrs.field(default=None, init=False)
    _is_over: bool = attrs.field(default=False, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _retry: IDelayedCall | None = attrs.field(default=None, init=False)

    def connect(
        self,
        timeout: float,
        *,
        options: Sequence[SocketOption] = (),
        eager: bool = False,
        sources: Sequence[Binding] = (),
    ) -> None:
        """Start to connect; may be finished before it returns. Raises `OSError` if no socket can be opened.

        An eager client has bytes to send at once. If a source has no port left, the next one is taken.
        """
        try:
            if self._family == socket.AF_UNIX:
                options = ()
            else:  # MPTCP has no TCP_QUICKACK
                eager = eager and not self._is_multipath
                options = (*(EAGER if eager else EAGER[:1]), *options)
            self._socket, number, why = start_connecting(
                self._family, self._name, options, sources, is_multipath=self._is_multipath
            )
            if number not in UNDER_WAY:
                self._fail(number, why)
            elif self._is_connected():
                self._connected()
            else:
                self._wait(number, timeout)
        except MemoryError:
            if self._is_over or self._socket is None:
                raise
            MEMORY.report_shortage()
            self._end(OUT_OF_MEMORY)

    def adopt(self, connecting: socket.socket, timeout: float) -> None:
        """Wait for a socket whose connection another owner has begun to make."""
        self._socket = connecting
        self._wait(errno.EINPROGRESS, timeout)

    def disconnect(self) -> None:
        self._stop_waiting()
        reset_on_close(self._socket)
        self._socket.close()

    def _wait(self, number: int, timeout: float) -> None:
        self._deadline = self._clock.callLater(timeout, self._too_late)
        if number == errno.EAGAIN and self._family == socket.AF_UNIX:
            self._retry = self._clock.callLater(_AGAIN, self._try_again)
        else:
            try:
                self._poller.watch(self._socket.fileno(), WRITE, self._ready)
            except OSError as problem:
                self._fail(problem.errno or errno.ENOMEM, str(problem.strerror))

    def _try_again(self) -> None:
        self._retry = None
        number = self._socket.connect_ex(self._name)
        if number == errno.EAGAIN:
            self._retry = self._clock.callLater(_AGAIN, self._try_again)
        elif number:
            self._fail(number, os.strerror(number))
        else:
            self._connected()

    def _is_connected(self) -> bool:
        # On this machine or one that is near, it often is by now, and need not be waited for.
        try:
            self._peer = self._socket.getpeername()
        except OSError:
            return False
        return True

    def _ready(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(number, os.strerror(number))
        elif self._is_connected():
            self._connected()

    def _too_late(self) -> None:
        self._deadline = None
        self._end(Failure(error.TimeoutError()))

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._poller.unwatch(self._socket.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _fail(self, number: int, why: str) -> None:
        self._end(Failure(error.getConnectError((number, why))))

    def _end(self, why: Failure) -> None:
        self._is_over = True
        self._stop_waiting()
        self._poller.closing(self._socket.fileno())
        reset_on_close(self._socket)
        self._socket.close()
        self._factory.clientConnectionFailed(self, why)

    def _connected(self) -> None:
        host = None
        if self._family != socket.AF_UNIX:
            own = self._socket.getsockname()
            if own == self._peer:
                self._fail(errno.ECONNREFUSED, OWN_PEER)
                return
            host = address_of(self._family, own)
        elif self._owner is not None and (why := owned_by_another(self._socket, self._owner)):
            self._fail(errno.EACCES, why)
            return
        self._stop_waiting()
        try:
            peer = _address_of(self._family, self._name)
            protocol = self._factory.buildProtocol(peer)
            transport = SocketTransport(self._poller, self._socket, self._family, peer, host)
        except MemoryError:
            MEMORY.report_shortage()
            self._end(OUT_OF_MEMORY)
            return
        except Exception:  # noqa: BLE001 - the attempt has ended, which its factory must learn
            self._end(Failure())
            return
        self._is_over = True
        try:
            transport.connect_protocol(protocol)
        except MemoryError:
            MEMORY.report_shortage(ended=1)
            transport.connectionLost(OUT_OF_MEMORY)


_LARGEST = 65_535


class DatagramClient:
    """Sends datagrams to one server in the form of a connection, as far as a check needs one."""

    def __init__(self, poller: Poller, host: str, port: int, factory: Any) -> None:
        self._poller = poller
        self._server = host, port
        self._factory = factory
        self._socket: socket.socket | None = None
        self._protocol: Any = None

    def connect(self, prepare: Callable[[socket.socket], object]) -> None:
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            prepare(opened)
            opened.connect(sockaddr(*self._server))
            self._poller.watch(opened.fileno(), READ, self._ready)
        except OSError as problem:
            opened.close()
            failure = Failure(error.getConnectError(problem))
            self._factory.clientConnectionFailed(None, failure)
            return
        self._socket = opened
        self._protocol = self._factory.buildProtocol(self.getPeer())
        self._protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # as if it had been lost on its way
        except OSError as problem:
            why = error.getConnectError(problem)
            self._poller.call_soon(lambda: self._lose(why))

    def _ready(self, events: int) -> None:  # noqa: ARG002 - reading shows what it is
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError as problem:
            self._lose(error.getConnectError(problem))
            return
        self._protocol.dataReceived(data)

    def _lose(self, why: Exception) -> None:
        if self._socket is not None:
            self.disconnect()
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(Failure(why))

    def disconnect(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            self._poller.closing(opened.fileno())
            opened.close()

    def loseConnection(self) -> None:
        self._poller.call_soon(lambda: self._lose(error.ConnectionDone()))

    abortConnection = loseWriteConnection = loseConnection

    def getPeer(self) -> IAddress:
        return _address(*self._server)

    def getHost(self) -> IAddress:
        name = self._socket.getsockname() if self._socket is not None else ("0.0.0.0", 0)  # noqa: S104 - none
        return _address(*name[:2])


def _address(host: str, port: int) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("UDP", host, port)
