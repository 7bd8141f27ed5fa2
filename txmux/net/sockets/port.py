"""Listening ports that a `Poller` watches: the base class of TCP and UDP ports, and the port that accepts connections."""

import errno
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any, TypeAlias

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.net.sockets.descriptors import DESCRIPTORS, SHORTAGE, AcceptPause, Descriptors
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.plainsocket import LeanSocket, SocketOption, host_of, is_reset, set_options
from txmux.net.sockets.poller import READ, Poller
from txmux.net.sockets.transport import SocketTransport, address_of
from txmux.transport import source_of_host

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - only looked for
_BACKLOG = 64  # clients accepted since the queue was last empty; from then on sources take turns
_TURN = 0.0004  # seconds of accepting, and of serving, before other sockets have their turn
_BREATH = 0.1  # seconds until serving is tried again that lacked something
_SERVED = 32  # clients a second that have left and are served all the same

WaitingClient: TypeAlias = tuple[socket.socket, Any]
"""A client's socket, and its address as ``accept()`` returns it."""

_log = Logger()


class WatchedPort(ABC):
    """A bound socket, which the port owns. It has the methods of Twisted's ports."""

    def __init__(self, poller: Poller, bound: socket.socket) -> None:
        bound.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._poller = poller
        self.socket = bound
        self._is_open = self.is_reading = False

    @abstractmethod
    def _ready(self, events: int) -> None: ...

    def _open(self) -> None:
        try:
            self._poller.watch(self.socket.fileno(), READ, self._ready)
        except OSError:
            self.socket.close()
            raise
        self._is_open = self.is_reading = True

    def _close(self) -> None:
        self._is_open = self.is_reading = False
        # epoll watches a socket until its last descriptor is closed, and another process may have one.
        self._poller.unwatch(self.socket.fileno())
        self.socket.close()

    def stopReading(self) -> None:
        if self._is_open:
            self.is_reading = False
            # Watched for no event rather than not at all: the epoll object might be closed otherwise, and opening another may fail.
            self._poller.watch(self.socket.fileno(), 0, self._ready)

    def startReading(self) -> None:
        if self._is_open:
            self.is_reading = True
            self._poller.watch(self.socket.fileno(), READ, self._ready)

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> None:
        if self._is_open:
            self._ready(READ)


class ClientsInTurns:
    """Accepted clients that wait to be served: one of each source in turn, so that a source that sends very many does not delay others.

    Sources are as in `source_of_host`; there are `count` clients.
    """

    def __init__(self) -> None:
        self._by_source: dict[str | bytes, deque[WaitingClient]] = {}
        self._order: deque[str | bytes] = deque()
        self.count = 0

    def add(self, client: WaitingClient) -> None:
        source = source_of_host(client[1][0])
        clients = self._by_source.get(source)
        if clients is None:
            clients = self._by_source[source] = deque()
            self._order.append(source)
        clients.append(client)
        self.count += 1

    def take(self) -> WaitingClient:
        """Remove and return the first client of the source whose turn it is."""
        source = self._order.popleft()
        clients = self._by_source[source]
        client = clients.popleft()
        if clients:
            self._order.append(source)
        else:
            del self._by_source[source]
        self.count -= 1
        return client


@implementer(IListeningPort)
class SocketPort(WatchedPort):
    """Accepts connections for a factory.

    Args:
        options: Set on the listening socket; accepted sockets inherit them on Linux.
        batch_size: The most connections that are accepted before other sockets have their turn.
        max_batch_time: The most seconds of one batch, since accepting a client also reads what it has sent already.
    """

    def __init__(
        self,
        poller: Poller,
        listening: socket.socket,
        factory: IProtocolFactory,
        *,
        options: Iterable[SocketOption] = (),
        batch_size: int = 64,
        max_batch_time: float = 0.005,
        descriptors: Descriptors = DESCRIPTORS,
    ) -> None:
        super().__init__(poller, listening)
        if listening.family != socket.AF_UNIX:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_options(listening, options)
        self._family = int(listening.family)
        # `socket.accept` would read the type of the listening socket from the kernel for each connection.
        self._accept = listening._accept  # type: ignore[attr-defined]
        name = listening.getsockname()
        # With a wildcard address, only the accepted socket has the address that the client connected to.
        every = self._family != socket.AF_UNIX and name[0] in EVERY_ADDRESS
        self._host = None if every else address_of(self._family, name)
        self._factory = factory
        # `MuxFactory.serve` takes plain TCP sockets, so that most connections need no protocol and no transport.
        is_tcp = self._family != socket.AF_UNIX
        self._serve: Any = getattr(factory, "serve", None) if is_tcp else None
        # What is served does not wait, see `MuxFactory.serve`: to tell the kernel would be a system call for each.
        no_wait = 0 if self._serve is None else int(socket.SOCK_NONBLOCK)
        self._kind = int(listening.type) | no_wait, listening.proto
        self._gone_left, self._renewed_at = _SERVED, 0.0  # how many may be served until then
        self._backlog = 0
        self._waiting = ClientsInTurns()
        self._next_turn: IDelayedCall | None = None
        label = str(name) if self._family == socket.AF_UNIX else f"port {name[1]}"
        self.pause = AcceptPause(
            poller.reactor, descriptors, label, listening.fileno, self.startReading
        )
        self._batch_size = batch_size
        self.max_batch_time = max_batch_time
        self._has_room = descriptors.room

    def startListening(self) -> None:
        self._open()
        self._factory.doStart()

    def stopListening(self) -> Deferred[None]:
        if self._is_open:
            if self._next_turn is not None and self._next_turn.active():
                self._next_turn.cancel()
            self._serve_waiting()
            self.pause.port_closed()
            self._close()
            self._factory.doStop()
        return succeed(None)

    @override
    def stopReading(self) -> None:
        self.pause.cancel_pause()
        super().stopReading()

    @override
    def startReading(self) -> None:
        self.pause.cancel_pause()
        super().startReading()

    def getHost(self) -> IAddress:
        return address_of(self._family, self.socket.getsockname())

    @override
    def doRead(self) -> None:
        # Called until the accept queue is empty, before the port closes: no turn of those that wait would come in between.
        self._serve_waiting()
        super().doRead()

    @override
    def _ready(self, events: int) -> None:
        if self._waiting.count or (self._backlog >= _BACKLOG and self._serve is not None):
            self._accept_waiting(monotonic() + _TURN)
        else:
            self._accept_and_serve()
        # No event reports that the accept queue is empty again.
        pause = self.pause
        if pause.is_short and self._is_open and pause.timer is None and not pause.has_clients():
            pause.queue_emptied()

    def _accept_waiting(self, until: float) -> None:
        """Accept all clients that wait, to serve them in turns."""
        waiting = self._waiting
        if self._next_turn is None:
            self._next_turn = self._poller.reactor.callLater(0, self._take_turn)
        while monotonic() < until and not (
            waiting.count and waiting.count >= self._has_room(waiting.count + 1)
        ):
            client = self._accept_one()
            if client is None:
                return
            if is_reset(client[0]):
                self._serve(*client, self._host, is_gone=True)
            else:
                waiting.add(client)

    def _take_turn(self) -> None:
        self._next_turn = None
        until = monotonic() + _TURN
        try:
            while self._waiting.count and self._can_serve() and monotonic() < until:
                self._serve_next()
        except MemoryError:
            MEMORY.report_shortage()
        if self._waiting.count:
            delay = 0.0 if self._can_serve() else _BREATH
            self._next_turn = self._poller.reactor.callLater(delay, self._take_turn)

    def _serve_waiting(self) -> None:
        while self._waiting.count:
            self._serve_next()

    def _can_serve(self) -> bool:
        return self.pause.timer is None and MEMORY.is_enough()

    def _serve_next(self) -> None:
        client = self._waiting.take()
        if is_reset(client[0]):
            self._serve(*client, self._host, is_gone=True)
        else:
            self._connect(*client)

    def _accept_and_serve(self) -> None:
        until = monotonic() + self.max_batch_time
        if until >= self._renewed_at:
            self._gone_left, self._renewed_at = _SERVED, until + 1.0
        closed: list[WaitingClient] = []
        for number in range(self._batch_size):
            client = self._accept_one()
            if client is None:
                break
            # A client that has sent something and left: its server would be asked in vain, while others wait.
            is_asked = (number or not self._gone_left) and self._serve is not None
            if not is_asked or not is_reset(client[0]):
                self._connect(*client)
            elif self._gone_left:
                self._gone_left -= 1
                closed.append(client)
            else:
                self._serve(*client, self._host, is_gone=True)
            # A protocol may have closed or paused the port.
            if not self._is_open or self.pause.timer is not None or monotonic() >= until:
                break
        for client in closed:  # after the living
            if self._is_open and self.pause.timer is None and monotonic() < until:
                self._connect(*client)
            else:
                self._serve(*client, self._host, is_gone=True)

    def _accept_one(self) -> WaitingClient | None:
        """Accept a client; ``None`` if none waits, or accepting is paused now."""
        if not self._has_room():
            self.pause_accepting(os.strerror(errno.EMFILE))
            return None
        if not MEMORY.is_enough():
            self.pause_accepting(None)
            return None
        try:
            descriptor, peer = self._accept()
            accepted = LeanSocket(self._family, *self._kind, descriptor)
        except BlockingIOError:
            self._backlog = 0
        except OSError as problem:
            if problem.errno in SHORTAGE:
                self.pause_accepting(os.strerror(problem.errno))
            # Any other error belongs to a client that has already left (accept(2)).
        else:
            self._backlog += 1
            return accepted, peer
        return None

    def _connect(self, accepted: socket.socket, name: Any) -> None:
        try:
            if self._serve is None:
                accepted.setblocking(False)  # noqa: FBT003
                self._build_protocol(accepted, name)
            else:
                self._serve(accepted, name, self._host)
        except OSError as problem:  # the poller cannot watch it
            self.pause_accepting(os.strerror(problem.errno or errno.ENOMEM))

    def _build_protocol(self, accepted: socket.socket, name: Any) -> None:
        peer = address_of(
            self._family, (host_of(name), *name[1:]) if self._family == socket.AF_INET6 else name
        )
        try:
            protocol = self._factory.buildProtocol(peer)
        except Exception:  # noqa: BLE001 - one client's failure must not affect the others
            _log.failure("no protocol could be made for a client")
            protocol = None
        if protocol is None:
            accepted.close()
            return
        transport = SocketTransport(self._poller, accepted, self._family, peer, self._host)
        transport.connect_protocol(protocol)
        if transport.watch_error is not None and self._is_open:
            self.pause_accepting(os.strerror(transport.watch_error.errno or errno.ENOMEM))

    def pause_accepting(self, shortage: str | None) -> None:
        self.pause.start_pause(shortage)
        super().stopReading()


class TwistedPort(SocketPort):
    """Accepts the clients of an open port of Twisted's, which the poller watches from now on."""

    def __init__(self, poller: Poller, port: Any, descriptors: Descriptors) -> None:
        super().__init__(poller, port.socket, port.factory, descriptors=descriptors)
        port.stopReading()
        self._open()
        port.startReading, port.stopReading = self.startReading, self.stopReading
        port.doRead = self.doRead
        self._lost, port.connectionLost = port.connectionLost, self._port_lost

    @classmethod
    def take_over(cls, poller: Poller, port: IListeningPort, descriptors: Descriptors) -> None:
        """Do so unless the port makes transports of its own kind, which its plugin knows best how to accept."""
        if getattr(port, "transport", None) in {tcp.Server, unix.Server}:
            cls(poller, port, descriptors)

    def _port_lost(self, reason: Failure) -> None:
        self.pause.port_closed()
        self._is_open = False
        self._poller.unwatch(self.socket.fileno())
        self._lost(reason)
