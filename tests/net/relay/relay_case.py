"""Relays between two peers, over real sockets, in each way that their ends come to be."""

import socket
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import directlyProvides

from tests.net.relay import wiring
from tests.support.looks import look_again
from tests.support.peers import Peer, PeerClientFactory, PeerFactory, reactor
from txmux.backends.connect.client import ProxyClientFactory
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.relay import Relay
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.net.sockets.transport import socket_below
from txmux.rules.model import Keepalive

BUFFERS = 2**16
"""What each socket is told to keep at most in either direction, in tests that fill them; Linux doubles it."""
_TURNS = 50  # turns of the reactor without any change, after which things are taken to stand still
_REST = 0.1
_RESTS = 100
_MILLISECOND = 0.001
_FEW_TURNS = 10
"""Turns of the reactor that a relay at rest may take in `_REST` seconds; what was under way may end in the first of `_RESTS` periods."""


@attrs.frozen
class Way:
    """How the ends of a relay come to be.

    Attributes:
        peer_wires: How those of the peers do, if they speak TLS.
        is_watched: Whether the reactor watches each socket.
        on_transports: Whether the relay does not know that its transports are sockets.
        rate: To which both sides are held, in bytes a second.
    """

    wires: wiring.Wires = wiring.TcpWiring
    peer_wires: wiring.Wires | None = None
    is_watched: bool = False
    on_transports: bool = False
    is_client_on_transport: bool = False
    rate: int | None = None
    # Whether a reset after which nothing is missing is told from another one
    finds_late: bool = True
    is_client_plain: bool = False  # though there are `peer_wires`


class RelayCase(TestCase):
    way = Way()
    keepalive: Keepalive | None = None

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        client, server = self.ends
        if self.way.is_client_on_transport:
            TransportEnd.under(client, self.poller)
        make = wiring.sides_on_transports if self.way.on_transports else wiring.make_sides
        client.receiver, server.receiver = sides = make(self.poller, client, server)
        relay = Relay(clock, timeouts, self.results.append, sides, self.keepalive)
        relay.on_first_byte = lambda is_server, _: self.began.append(is_server)
        for side in sides:
            side.limit_rate(self.way.rate)
        return relay

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
        self.began: list[bool] = []
        self.ends: list[Any] = []
        is_watched = self.way.is_watched
        self.poller = ReactorPoller(reactor) if is_watched else Poller.for_reactor(reactor)
        self.wiring = self.way.wires(self.poller, self)
        plain = wiring.UnixWiring if self.wiring.family == socket.AF_UNIX else wiring.TcpWiring
        peers = (self.way.peer_wires or plain)(self.poller, self)
        clients, servers = PeerFactory(wiring.Held), PeerFactory()  # type: ignore[arg-type]
        port, address = self.wiring.listen(clients)
        self.addCleanup(port.stopListening)
        server_port, server_address = peers.listen(servers)
        self.addCleanup(server_port.stopListening)
        connecting = PeerClientFactory()
        peers.connect(address, connecting)
        client = await connecting.connected
        self.addCleanup(self._end, client)
        client_end: Any = await clients.peer()
        if client_finished:
            client.finish()
        self._clock = clock

        def start(server_end: Any) -> None:
            self.ends = [client_end, server_end]
            if small_buffers:
                limit_buffers(client, client_end, server_end)
            self.relay = self.make_relay(clock or reactor, timeouts)
            self.relay.start(pending, client_finished=client_finished)

        factory = ProxyClientFactory(start, Failure.raiseException)
        self.wiring.connect(server_address, factory)
        server = await servers.peer()
        self.addCleanup(self._end, server)
        if small_buffers:
            limit_buffers(server)
        while not self.ends:
            await self.turn()
        return client, server

    async def _ended(self, peer: Peer) -> None:
        if self.ends and not self.results:
            self.relay.abort("killed")
        while self.ends and not self.results:
            await self.turn()
        if peer.lost is None:
            await peer.is_lost(peer.reset)

    def _end(self, peer: Peer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ended(peer))

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await deferLater(reactor, 0)

    async def over(self, *peers: Peer, reason: str | None = None) -> RelayResult:
        for peer in peers:
            lost = peer.is_lost()
            while not lost.called:
                await self._turn_and_look()
            await lost
        while not self.results:
            await self._turn_and_look()
        (result,) = self.results
        if reason is not None:
            self.assertEqual(result.reason, reason)
        return result

    async def _turn_and_look(self) -> None:
        await deferLater(reactor, 0.001)
        if self._clock is not None:
            look_again(self._clock)

    async def acknowledged(self) -> None:
        while any(wiring.unsent(end.transport) for end in self.ends):
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
        # The reactor that runs on asyncio has no turns of its own.
        loop, name = getattr(reactor, "_asyncioEventloop", None), "_run_once"
        if loop is None:
            loop, name = reactor, "doIteration"
        plain = getattr(loop, name)

        def counted(*delay: float) -> None:
            nonlocal turns
            # A reactor with poll(2), which takes whole milliseconds, turns through the last one before a timer.
            turns += not (delay and delay[0] and delay[0] < _MILLISECOND)
            plain(*delay)

        patch = self.patch(loop, name, counted)
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
        else:
            self.assertEqual([result.reset for result in self.results], ["unseen"])

    async def stall(self, reader: Peer, writer: Peer) -> "Endless":
        reader.transport.pauseProducing()
        producer = Endless(writer, limit=3 * 1024 * 1024)
        while not producer.paused:
            await self.turn()
        await self.standstill(reader, writer)
        # Four sockets in a row, Linux keeping twice what it was told for each of two directions, and the relay.
        under_way = producer.written - wiring.unsent(writer.transport) - len(reader.received)
        self.assertLess(under_way, 8 * BUFFERS + 1024 * 1024)
        return producer


class Endless:
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
    for protocol in protocols:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            socket_below(protocol.transport).setsockopt(socket.SOL_SOCKET, option, BUFFERS)


def _unsent(peer: Peer) -> int:
    return 0 if peer.lost is not None else wiring.unsent(peer.transport)
