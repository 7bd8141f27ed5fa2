"""What every relay must do, over real sockets. A test module mixes this with a `TestCase` and names a relay."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import deferLater
from zope.interface import directlyProvides

from tests.net.relay.wiring import TcpWiring, UnixWiring
from tests.support.looks import look_again
from tests.support.peers import Peer, PeerFactory, reactor
from txmux.backends.connect.client import ProxyClientFactory
from txmux.net.relay.ends import End
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peer import unsent
from txmux.net.relay.relay import Relay

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base

    from tests.net.relay.wiring import Sides, Wiring
    from txmux.rules.model import Keepalive
else:
    _Base = object

BUFFERS = 2**16
"""What each socket is told to keep at most in either direction, in tests that fill them; Linux doubles it."""

_TURNS = 50  # turns of the reactor without any change, after which things are taken to stand still
_REST = 0.2
_RESTS = 100
_FEW_TURNS = 20
"""Turns of the reactor that a relay at rest may take in `_REST` seconds; what was under way may end in the first of `_RESTS` periods."""


class _Held(End):
    class receiver:  # noqa: N801
        connection_lost = staticmethod(lambda _reason: None)

    def connectionMade(self) -> None:
        self.transport.pauseProducing()


class _PeerClientFactory(ClientFactory):
    noisy = False

    def __init__(self, connected: Deferred[Peer]) -> None:
        self._connected = connected

    def buildProtocol(self, addr: Any) -> Peer:
        peer = Peer()
        connected = self._connected
        peer.connectionMade = lambda: connected.callback(peer)  # type: ignore[method-assign]
        return peer


class RelayCase(_Base):
    """Puts relays between two peers; `make_sides` is what a subclass adds."""

    timeout = 300
    keepalive: Keepalive | None = None

    def make_sides(self, clock: Any, client: End, server: End) -> Sides:
        raise NotImplementedError

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        client, server = self.ends
        client.receiver, server.receiver = sides = self.make_sides(clock, client, server)
        return Relay(clock, timeouts, self.results.append, sides, self.keepalive)

    def make_wiring(self) -> Wiring:
        return TcpWiring(reactor)

    async def start(
        self,
        pending: bytes = b"",
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        *,
        client_finished: bool = False,
        clock: Any = None,
        small_buffers: bool = False,
    ) -> tuple[Peer, Peer]:
        self.results: list[RelayResult] = []
        self.wiring = self.make_wiring()
        plain = TcpWiring(reactor)
        if self.wiring.family == socket.AF_UNIX:
            plain = UnixWiring(reactor, self)  # type: ignore[assignment]
        clients, servers = PeerFactory(_Held), PeerFactory()  # type: ignore[arg-type]
        port, address = self.wiring.listen(clients)
        self.addCleanup(port.stopListening)
        server_port, server_address = plain.listen(servers)
        self.addCleanup(server_port.stopListening)
        connected: Deferred[Peer] = Deferred()
        plain.connect(address, _PeerClientFactory(connected))
        client = await connected
        self.addCleanup(self._end, client)
        client_end: Any = await clients.peer()
        if client_finished:
            client.finish()
        self._clock = clock

        def start(server_end: Any) -> None:
            self.ends: list[Any] = [client_end, server_end]
            if small_buffers:
                limit_buffers(client, client_end, server_end)
            self.relay = self.make_relay(clock or reactor, timeouts)
            self.relay.start(pending, client_finished=client_finished)

        def fail(failure: Any) -> None:
            failure.raiseException()

        self.wiring.connect(server_address, ProxyClientFactory(start, fail))
        server = await servers.peer()
        self.addCleanup(self._end, server)
        if small_buffers:
            limit_buffers(server)
        while not hasattr(self, "ends"):
            await self.turn()
        return client, server

    async def _ended(self, peer: Peer) -> None:
        if hasattr(self, "ends") and not self.results:
            self.relay.abort("killed")
        while hasattr(self, "ends") and not self.results:
            await self.turn()
        if peer.lost is None:
            peer.reset()
            await peer.is_lost()

    def _end(self, peer: Peer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ended(peer))

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await deferLater(reactor, 0)

    async def over(self, *peers: Peer) -> RelayResult:
        for peer in peers:
            lost = peer.is_lost()
            while not lost.called:
                await self._turn_and_look()
            await lost
        while not self.results:
            await self._turn_and_look()
        self.assertEqual(len(self.results), 1)
        return self.results[0]

    async def _turn_and_look(self) -> None:
        await self.turn()
        if self._clock is not None:
            look_again(self._clock)

    async def acknowledged(self) -> None:
        while any(unsent(end.transport) for end in self.ends):
            await self.turn()

    async def standstill(self, *peers: Peer) -> None:
        before: Any = None
        while before != (now := [(len(peer.received), _unsent(peer)) for peer in peers]):
            before = now
            await self.turn(_TURNS)

    async def taken(self, peer: Peer) -> None:
        while _unsent(peer):
            await self.turn()
        await self.turn(_TURNS)

    async def assert_rests(self) -> None:
        turns = 0
        plain = reactor.doIteration

        def counted(delay: float) -> None:
            nonlocal turns
            turns += 1
            plain(delay)

        patch = self.patch(reactor, "doIteration", counted)
        for _ in range(_RESTS):
            turns = 0
            await deferLater(reactor, _REST)
            if turns <= _FEW_TURNS:
                break
        patch.restore()
        self.assertLessEqual(turns, _FEW_TURNS, f"turns of the reactor in {_REST} s")

    def assert_broken_off(self, *peers: Peer) -> None:
        if self.wiring.breaks_off:
            for peer in peers:
                self.assertTrue(peer.was_reset())

    async def stall(self, reader: Peer, writer: Peer) -> Endless:
        reader.transport.pauseProducing()
        producer = Endless(writer, limit=64 * 1024 * 1024)
        while not producer.paused:
            await self.turn()
        await self.standstill(reader, writer)
        # Four sockets in a row, Linux keeping twice what it was told for each of two directions, and the relay.
        under_way = producer.written - unsent(writer.transport) - len(reader.received)
        self.assertLess(under_way, 8 * BUFFERS + 1024 * 1024)
        return producer


class Endless:
    """Writes the same bytes again and again, as long as the transport takes them."""

    chunk = bytes(range(256)) * 256

    def __init__(self, writer: Peer, limit: int) -> None:
        directlyProvides(self, IPushProducer)
        self._transport = writer.transport
        self.limit = limit
        self.written = 0
        self.paused = False
        self._transport.registerProducer(self, streaming=True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.written < self.limit:
            self.written += len(self.chunk)
            self._transport.write(self.chunk)

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True


def limit_buffers(*protocols: Any) -> None:
    """Bound what the system keeps for these protocols' sockets."""
    for protocol in protocols:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            protocol.transport.getHandle().setsockopt(socket.SOL_SOCKET, option, BUFFERS)


def _unsent(peer: Peer) -> int:
    return 0 if peer.lost is not None else unsent(peer.transport)
