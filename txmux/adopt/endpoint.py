"""A Twisted server endpoint whose clients come from txmux."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.adopt.receiving import HandedOver, NotGivenError, receive
from txmux.classes import define
from txmux.files import FileId, file_id, remove_own_socket
from txmux.net.sockets.handoff import TAKEN
from txmux.net.sockets.unixpath import open_listening

_PATIENCE = 5.0  # seconds that a sender has for its message
_PAUSE = 1.0  # seconds until clients are accepted again that could not be
_AT_ONCE = 64  # senders that are accepted before others have their turn

_log = Logger()


class AdoptedTransport(tcp.Server):
    """The transport of a client whose socket was handed over; as any server's, with the addresses that txmux has sent.

    Attributes:
        handed_over: What is known of the client.
    """

    def __init__(
        self, client: socket.socket, protocol: IProtocol, handed_over: HandedOver, reactor: Any
    ) -> None:
        self.handed_over = handed_over
        own: Any = None  # no port has accepted it
        super().__init__(client, protocol, handed_over.client, own, 0, reactor)
        self.repstr = f"<AdoptedTransport {handed_over.id} of {handed_over.client}>"

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return _twisted_address(self.handed_over.client)

    def getHost(self) -> IAddress:
        """Return the address that the client connected to."""
        return _twisted_address(self.handed_over.local)


def _twisted_address(pair: tuple[str, int]) -> IAddress:
    form = IPv6Address if ":" in pair[0] else IPv4Address
    return form("TCP", *pair)


@implementer(IStreamServerEndpoint)
@define(eq=False)
class AdoptingEndpoint:
    """Serves clients whose sockets txmux hands over with ``handover:/PATH``.

    As a string it is ``txmux:/PATH``, with ``mode=``, ``user=`` and ``backlog=``. The transports are `AdoptedTransport`.

    Args:
        reactor: The reactor.
        path: The file of the UNIX socket; a stale one is replaced.
        mode: The mode of that file; to connect takes write permission.
        users: Names or numbers of further users whose processes may hand over sockets, beside root and the user of this process.
        backlog: Clients that may wait.
    """

    _reactor: Any
    _path: str
    _mode: int = 0o600
    _users: Collection[str | int] = ()
    _backlog: int = 128

    @classmethod
    def parsed(
        cls, reactor: Any, path: str, *, mode: str = "600", user: str = "", backlog: str = "128"
    ) -> AdoptingEndpoint:
        """Make one of the parts of an endpoint string.

        Raises:
            ValueError: One of them cannot be used.
        """
        users = [name for name in user.split(",") if name]
        return cls(reactor, path, int(mode, 8), users, int(backlog))

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; fails with `CannotListenError`."""
        return maybeDeferred(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        path = Path(self._path)
        try:
            users = {0, os.geteuid(), *map(_user_id, self._users)}
            listening = open_listening(path, self._mode, self._backlog, socket.SOCK_SEQPACKET)
        except (OSError, LookupError) as problem:
            raise CannotListenError("txmux", path, problem) from problem
        port = _Port(self._reactor, listening, path, factory, users)
        port.startListening()
        return port


def _user_id(name: str | int) -> int:
    return int(name) if str(name).isdecimal() else pwd.getpwnam(str(name)).pw_uid


@implementer(IListeningPort, IReadDescriptor)
@define(eq=False, repr=False)
class _Port:
    """Accepts the connections over which sockets come."""

    _reactor: Any
    _listening: socket.socket
    _path: Path
    _factory: IProtocolFactory
    _users: Collection[int]
    _senders: set[_Sender] = attrs.field(factory=set, init=False)
    _again: Any = attrs.field(default=None, init=False)
    _is_open: bool = attrs.field(default=True, init=False)
    _file: FileId = attrs.field(init=False)
    fileno: Callable[[], int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = file_id(self._path)
        self.fileno = self._listening.fileno

    def __repr__(self) -> str:
        return f"<txmux:{self._path}>"

    def startListening(self) -> None:
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Stop accepting, and remove the file; connected clients stay."""
        if self._is_open:
            self._is_open = False
            self._reactor.removeReader(self)
            if self._again is not None:
                self._again.cancel()
            for sender in [*self._senders]:
                sender.end()
            self._listening.close()
            with suppress(OSError):
                remove_own_socket(self._path, self._file)
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        return UNIXAddress(str(self._path))

    def logPrefix(self) -> str:
        return "txmux.adopt"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        self.stopListening()

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                _log.warn(
                    "{port}: cannot receive clients, which wait: {why}",
                    port=self,
                    why=problem.strerror,
                )
                self._reactor.removeReader(self)
                self._again = self._reactor.callLater(_PAUSE, self._accept_again)
                return
            accepted.settimeout(0)
            sender = _Sender(self, accepted)
            if not sender.take():
                self._senders.add(sender)
                sender.wait(self._reactor)

    def _accept_again(self) -> None:
        self._again = None
        self._reactor.addReader(self)

    def forget(self, sender: _Sender) -> None:
        self._senders.discard(sender)

    def receive(self, sender: socket.socket) -> None:
        """Receive a socket from a sender, and serve it; `BlockingIOError` if it has sent nothing yet."""
        try:
            client, handed_over = receive(sender, self._users)
        except BlockingIOError:
            raise
        except (NotGivenError, OSError) as problem:
            _log.warn("{port}: no socket was received: {why}", port=self, why=str(problem))
            return
        try:
            self._serve(client, handed_over)
        except Exception:  # noqa: BLE001 - one client's trouble is not that of the others
            _log.failure("{port}: {id} could not be served", port=self, id=handed_over.id)
            client.close()
        with suppress(OSError):  # it has hung up
            sender.send(TAKEN)

    def _serve(self, client: socket.socket, handed_over: HandedOver) -> None:
        protocol = self._factory.buildProtocol(_twisted_address(handed_over.client))
        if protocol is None:
            client.close()
            return
        protocol.makeConnection(AdoptedTransport(client, protocol, handed_over, self._reactor))


@implementer(IReadDescriptor)
class _Sender:
    """One connection over which a socket comes."""

    def __init__(self, port: _Port, sender: socket.socket) -> None:
        self._port = port
        self._sender = sender
        self._reactor: Any = None
        self._deadline: Any = None
        self.fileno = sender.fileno

    def take(self) -> bool:
        """Take what has come, and end; return whether there was anything."""
        try:
            self._port.receive(self._sender)
        except BlockingIOError:
            return False
        self.end()
        return True

    def wait(self, reactor: Any) -> None:
        self._reactor = reactor
        self._deadline = reactor.callLater(_PATIENCE, self._too_late)
        reactor.addReader(self)

    def _too_late(self) -> None:
        _log.warn("{port}: no socket was received: there was no message", port=self._port)
        self.end()

    def end(self) -> None:
        if self._reactor is not None:
            self._reactor.removeReader(self)
            if self._deadline.active():
                self._deadline.cancel()
            self._port.forget(self)
        self._sender.close()

    def doRead(self) -> None:
        self.take()

    def logPrefix(self) -> str:
        return "txmux.adopt"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        self.end()
