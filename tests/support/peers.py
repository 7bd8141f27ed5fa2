"""Real sockets' other ends, with which tests speak to txmux and wait for what it does."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.ports import listen_tcp
from tests.support.undone import Cleans
from txmux.net.sockets.plainsocket import reset_on_close

reactor: Any = _reactor


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """One end of a connection, whose test waits for things to happen to it."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.finished = False
        self.lost: Failure | None = None
        self._waiting: list[tuple[Callable[[], bool], Deferred[Peer]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._changed()

    def readConnectionLost(self) -> None:
        self.finished = True
        self._changed()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.finished = True
        self._changed()

    def _changed(self) -> None:
        for entry in list(self._waiting):
            condition, waiter = entry
            if condition():
                self._waiting.remove(entry)
                waiter.callback(self)
            elif self.lost is not None:
                self._waiting.remove(entry)
                waiter.errback(AssertionError(f"lost while waiting: {self.lost.value}"))

    def until(self, condition: Callable[[], bool]) -> Deferred[Peer]:
        if condition():
            return succeed(self)
        if self.lost is not None:
            return fail(AssertionError(f"lost already: {self.lost.value}"))
        waiter: Deferred[Peer] = Deferred()
        self._waiting.append((condition, waiter))
        return waiter

    def has(self, count: int) -> Deferred[Peer]:
        return self.until(lambda: len(self.received) >= count)

    def tell(self, other: Peer, data: bytes, count: int = 0) -> Deferred[Peer]:
        """Send something, and wait until the other end has so many bytes in all, or else as many as these."""
        self.send(data)
        return other.has(count or len(data))

    def has_all(self, does: Callable[[], object] = bool) -> Deferred[Peer]:
        """Do something, after which the other side has ended, and wait until that is known here."""
        does()
        return self.until(lambda: self.finished)

    def is_lost(self, does: Callable[[], object] = bool) -> Deferred[Peer]:
        """Do something, and wait until the connection is gone, which takes our own close once the other side has closed."""

        def close(_: Peer) -> Deferred[Peer]:
            if self.lost is None:
                self.close()
            return self.until(lambda: self.lost is not None)

        return self.has_all(does).addCallback(close)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self) -> None:
        self.transport.loseWriteConnection()

    def close(self) -> None:
        self.transport.loseConnection()

    def reset(self) -> None:
        self.transport.abortConnection()

    def was_reset(self) -> bool:
        return self.lost is not None and not self.lost.check(type(connectionDone.value))


GREETING = b"220 mail.example ESMTP\r\n"


class Greeter(Peer):
    def connectionMade(self) -> None:
        self.send(GREETING)


class PeerFactory(ServerFactory):
    noisy = False

    def __init__(self, build: Callable[[], Peer] = Peer) -> None:
        self.build = build
        self.peers: list[Peer] = []
        self._waiting: list[tuple[int, Deferred[Peer]]] = []

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        peer = self.build()
        made = peer.makeConnection

        def make_connection(transport: Any) -> None:
            made(transport)
            self.peers.append(peer)
            for entry in list(self._waiting):
                if entry[0] < len(self.peers):
                    self._waiting.remove(entry)
                    entry[1].callback(self.peers[entry[0]])

        peer.makeConnection = make_connection  # type: ignore[method-assign]
        return peer

    def peer(self, index: int = 0) -> Deferred[Peer]:
        if index < len(self.peers):
            return succeed(self.peers[index])
        waiter: Deferred[Peer] = Deferred()
        self._waiting.append((index, waiter))
        return waiter

    async def heard(self, count: int, index: int = 0) -> Peer:
        peer = await self.peer(index)
        await peer.has(count)
        return peer


def pair(test: Cleans, *, is_tcp: bool = False) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection, the accepted one first; they are closed with the test."""
    if is_tcp:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ends = listening.accept()[0], peer
    else:
        ends = socket.socketpair()
    for end in ends:
        test.addCleanup(end.close)
    return ends


def reset(*connected: socket.socket) -> None:
    for one in connected:
        reset_on_close(one)
        one.close()


def close(*ends: Peer | socket.socket) -> None:
    for end in ends:
        end.close()


class PeerClientFactory(ClientFactory):
    """Connects one peer; `connected` fires with it, or with the reason why there is no connection."""

    noisy = False

    def __init__(self) -> None:
        self.connected: Deferred[Peer] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        peer = Peer()
        peer.connectionMade = lambda: self.connected.callback(peer)  # type: ignore[method-assign]
        return peer

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.connected.errback(reason)


def listen(test: TestCase, factory: Any, interface: str = "127.0.0.1") -> int:
    port = listen_tcp(reactor, factory, backlog=1024, interface=interface)
    test.addCleanup(port.stopListening)
    return int(port.getHost().port)


def listen_tls(test: TestCase, factory: Any, options: Any) -> int:
    port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
    test.addCleanup(port.stopListening)
    return int(port.getHost().port)


async def connect(
    test: Cleans, port: int, host: str = "127.0.0.1", *, peer: Peer | None = None, source: str = ""
) -> Peer:
    if peer is not None:
        made: Peer = await connectProtocol(TCP4ClientEndpoint(reactor, host, port), peer)
        return made
    make = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    place = make(reactor, host, port, bindAddress=(source, 0) if source else None)
    peer = await connectProtocol(place, Peer())

    async def gone() -> None:
        if peer.lost is None:
            peer.reset()
            await peer.is_lost()

    test.addCleanup(lambda: Deferred.fromCoroutine(gone()))
    return peer


def make_stalled_port(test: Cleans, host: str = "127.0.0.1", port: int = 0) -> int:
    full = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    full.bind((host, port))
    full.listen(0)
    test.addCleanup(full.close)
    test.addCleanup(socket.create_connection(full.getsockname()[:2]).close)
    select.select([full], [], [])  # it waits there, in the only place
    return int(full.getsockname()[1])
