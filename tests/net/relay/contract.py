"""What every relay must do, over real sockets. A test module mixes this with a `TestCase` and names a relay."""

from __future__ import annotations

import socket
from functools import cached_property
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock, deferLater
from zope.interface import directlyProvides

from tests.net.relay.wiring import (
    Sides,
    TcpWiring,
    UnixWiring,
    Wires,
    make_sides,
    sides_on_transports,
    unsent,
)
from tests.support.looks import look_again
from tests.support.peers import Peer, PeerClientFactory, PeerFactory, reactor
from txmux.backends.connect.client import ProxyClientFactory
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peers import Peer as RelayPeer
from txmux.net.relay.relay import Relay
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.net.sockets.transport import socket_below
from txmux.rules.model import Keepalive

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

BUFFERS = 2**16
"""What each socket is told to keep at most in either direction, in tests that fill them; Linux doubles it."""

_TURNS = 50  # turns of the reactor without any change, after which things are taken to stand still
_REST = 0.1
_RESTS = 100
_MILLISECOND = 0.001
_FEW_TURNS = 10
"""Turns of the reactor that a relay at rest may take in `_REST` seconds; what was under way may end in the first of `_RESTS` periods."""


class _Held(RelayPeer):
    class receiver:  # noqa: N801
        connection_lost = staticmethod(lambda _reason: None)

    def connectionMade(self) -> None:
        self.transport.pauseProducing()


class RelayCase(_Base):
    """Puts relays between two peers.

    Attributes:
        wires: How the ends of the relay come to be.
        peer_wires: The same of the peers, if they speak TLS.
        is_watched: Whether the reactor watches each socket.
        on_transports: Whether the relay does not know that its transports are sockets.
        rate: To which both sides are held, in bytes a second.
    """

    wires: Wires = TcpWiring
    peer_wires: Wires | None = None
    is_watched = False
    on_transports = False
    rate: int | None = None
    keepalive: Keepalive | None = None
    finds_late = True  # whether a reset after which nothing is missing is told from another one
    is_client_plain = False  # though there are `peer_wires`

    @cached_property
    def poller(self) -> Poller:
        return ReactorPoller(reactor) if self.is_watched else Poller.for_reactor(reactor)

    def make_sides(self, client: RelayPeer, server: RelayPeer) -> Sides:
        return (sides_on_transports if self.on_transports else make_sides)(
            self.poller, client, server
        )

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        client, server = self.ends
        client.receiver, server.receiver = sides = self.make_sides(client, server)
        relay = Relay(clock, timeouts, self.results.append, sides, self.keepalive)
        for side in sides:
            side.limit_rate(self.rate)
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
        self.ends: list[Any] = []
        self.wiring = self.wires(self.poller, self)
        plain = UnixWiring if self.wiring.family == socket.AF_UNIX else TcpWiring
        peers = (self.peer_wires or plain)(self.poller, self)
        clients, servers = PeerFactory(_Held), PeerFactory()  # type: ignore[arg-type]
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

        def fail(failure: Any) -> None:
            failure.raiseException()

        self.wiring.connect(server_address, ProxyClientFactory(start, fail))
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
            peer.reset()
            await peer.is_lost()

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
            socket_below(protocol.transport).setsockopt(socket.SOL_SOCKET, option, BUFFERS)


def _unsent(peer: Peer) -> int:
    return 0 if peer.lost is not None else unsent(peer.transport)


class OrderContract(RelayCase):
    """Bytes, half-closes, slow readers, and time."""

    async def test_client_half_close(self) -> None:
        client, server = await self.start()
        client.send(b"all I have to say")
        client.finish()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"all I have to say")
        await self.assert_rests()
        server.send(b"heard")
        server.close()
        await self.over(client, server, reason="done")
        self.assertEqual(bytes(client.received), b"heard")

    async def test_server_half_close(self) -> None:
        client, server = await self.start()
        server.send(b"close_notify")
        server.finish()
        await client.has_all()
        client.send(b"one more thing")
        client.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(server.received), b"one more thing")
        self.assertEqual(result, RelayResult("done", bytes_in=14, bytes_out=12))

    async def test_half_close_before_the_relay(self) -> None:
        client, server = await self.start(pending=b"all of it", client_finished=True)
        await server.has_all()
        self.assertEqual(bytes(server.received), b"all of it")
        server.send(b"answer")
        server.close()
        await self.over(client, server)
        self.assertEqual(bytes(client.received), b"answer")

    async def assert_all_comes_after_a_stall(self, reader: Peer, writer: Peer) -> None:
        producer = await self.stall(reader, writer)
        await self.assert_rests()
        reader.transport.resumeProducing()
        await reader.has(producer.limit)
        self.assertEqual(len(reader.received), producer.limit)
        self.assertEqual(bytes(reader.received[-len(producer.chunk) :]), producer.chunk)

    async def test_stalled_client(self) -> None:
        client, server = await self.start(small_buffers=True)
        await self.assert_all_comes_after_a_stall(client, server)

    async def test_stalled_server(self) -> None:
        client, server = await self.start(small_buffers=True)
        await self.assert_all_comes_after_a_stall(server, client)

    async def test_stalled_client_that_has_finished(self) -> None:
        client, server = await self.start(small_buffers=True)
        client.finish()
        await server.has_all()
        await self.assert_all_comes_after_a_stall(client, server)

    async def test_stalled_server_that_has_finished(self) -> None:
        client, server = await self.start(small_buffers=True)
        server.finish()
        await client.has_all()
        await self.assert_all_comes_after_a_stall(server, client)

    async def test_client_that_finishes_while_it_is_stalled(self) -> None:
        client, server = await self.start(small_buffers=True)
        producer = await self.stall(client, server)
        client.finish()
        await server.has_all()
        await self.assert_rests()
        self.assertLess(producer.written, producer.limit)
        client.transport.resumeProducing()
        await client.has(producer.limit)

    async def test_stalled_server_of_a_client_that_finishes(self) -> None:
        client, server = await self.start(small_buffers=True)
        server.transport.pauseProducing()
        size = 8 * 1024 * 1024
        client.send(bytes(size))
        client.finish()
        await self.standstill(client, server)
        server.transport.resumeProducing()
        await server.has_all()
        self.assertEqual(len(server.received), size)
        server.send(b"heard")
        await client.has(5)

    async def test_idle(self) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(idle=10), clock=clock)
        clock.advance(9)
        client.send(b"x")
        await server.has(1)
        clock.advance(9)
        server.send(b"y")
        await client.has(1)
        await self.acknowledged()
        clock.advance(9.9)
        self.assertEqual(self.results, [])
        clock.advance(0.2)
        await self.over(client, server, reason="idle-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_half_closed_and_silent(self) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=5), clock=clock)
        client.finish()
        await server.has_all()
        clock.advance(4)
        server.send(b"still here")
        await client.has(10)
        await self.acknowledged()
        clock.advance(4)
        self.assertEqual(self.results, [])
        clock.advance(1.1)
        await self.over(client, server, reason="half-close-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_max_duration(self) -> None:
        clock = Clock()
        timeouts = Timeouts(idle=4, max_duration=10)
        client, server = await self.start(timeouts=timeouts, clock=clock)
        for count in range(1, 4):
            clock.advance(3)
            client.send(b"x")
            await server.has(count)
        clock.advance(1)
        await self.over(client, server, reason="max-duration")
        self.assert_broken_off(client)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_abort(self) -> None:
        client, server = await self.start()
        self.relay.abort("drained")
        await self.over(client, server, reason="drained")
        self.assert_broken_off(client, server)

    async def test_abort_of_a_stalled_one(self) -> None:
        client, server = await self.start(small_buffers=True)
        await self.stall(client, server)
        self.relay.abort("killed")
        client.transport.resumeProducing()
        await self.over(client, server, reason="killed")

    async def test_a_slow_reader_gets_all(self) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=60), clock=clock)
        client.transport.pauseProducing()
        client.finish()
        size = 8 * 1024 * 1024
        server.send(bytes(size))
        server.close()
        while len(client.received) < size:
            clock.advance(2)
            client.transport.resumeProducing()
            expected = min(size, len(client.received) + 1)
            await client.until(lambda: len(client.received) >= expected or client.lost is not None)  # noqa: B023
            self.assertIsNone(client.lost)
            client.transport.pauseProducing()
        client.transport.resumeProducing()
        await self.over(client, server, reason="done")
        self.assertEqual(len(client.received), size)

    async def test_a_reader_that_never_reads_is_cut_off(self) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=5), clock=clock)
        client.transport.pauseProducing()
        client.finish()
        await server.has_all()
        server.send(bytes(32 * 1024 * 1024))
        server.close()
        while not self.results:
            await self.turn()
            clock.advance(5)
        client.transport.resumeProducing()
        await self.over(client, server)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_urgent_byte(self) -> None:
        """A byte that is sent as urgent neither stops what comes after it nor ends it."""
        client, server = await self.start()
        if self.wiring.family != socket.AF_INET or self.peer_wires:
            return
        server.transport.pauseProducing()
        client.send(b"a" * 3_000_000)
        await self.standstill(client)
        handle: socket.socket = client.transport.getHandle()
        server.transport.resumeProducing()
        await server.has(3_000_000)
        client.send(b"b" * 1_000_000)
        while client.transport.dataBuffer or client.transport._tempDataLen:
            await self.turn()
        handle.send(b"!", socket.MSG_OOB)
        client.send(b"c" * 1000)
        client.finish()
        await server.has_all()
        self.assertEqual(bytes(server.received[-1001:]), b"b" + b"c" * 1000)
        server.close()
        await self.over(client, server, reason="done")

    async def test_idle_with_a_stalled_server(self) -> None:
        """What is held when the time is over still reaches a peer that reads on, in either direction."""
        for upload in (True, False):
            with self.subTest(upload=upload):
                clock = Clock()
                timeouts = Timeouts(idle=60, half_close=60)
                client, server = await self.start(timeouts=timeouts, clock=clock)
                sender, reader = (client, server) if upload else (server, client)
                reader.transport.pauseProducing()
                sender.send(b"x" * 20_000_000)
                await self.standstill(sender)
                while not self.relay.ending:
                    # The first look finds that there is something to take, as may others while the systems shift it about.
                    clock.advance(60)
                    await self.turn(5)
                await self.assert_rests()
                reader.transport.resumeProducing()
                while not self.results:
                    await self.turn()
                    if reader.finished and reader.lost is None:
                        reader.close()
                    if sender.finished and sender.lost is None:
                        sender.close()
                await reader.is_lost()
                (result,) = self.results
                self.assertEqual(result.reason, "idle-timeout")
                self.assertEqual(
                    len(reader.received), result.bytes_in if upload else result.bytes_out
                )


_MiB = 2**20


class ResetContract(OrderContract):
    """A reset is passed on as a reset, after what came before it; for sockets that know resets."""

    async def test_reset_after_all_was_said(self) -> None:
        client, server = await self.start()
        client.transport.pauseProducing()
        server.send(bytes(_MiB))
        server.finish()
        await self.taken(server)
        server.reset()
        await server.is_lost()
        await self.turn(50)
        while not self.relay.ending:
            # Some hear of the reset only when they send. They read this byte; one that nobody reads any more would
            # have the system reset the client's connection, too.
            client.send(b"x")
            await self.turn(50)
        client.transport.resumeProducing()
        await self.over(client, reason="server-reset")
        self.assertEqual(len(client.received), _MiB)
        self.assertFalse(client.was_reset())

    async def test_reset_while_the_other_side_is_stalled(self) -> None:
        client, server = await self.start(timeouts=Timeouts(half_close=0.2), small_buffers=True)
        await self.stall(client, server)
        server.transport.unregisterProducer()
        server.reset()
        await self.assert_rests()
        # What is still on its way to the client cannot tell of its end, so the reset shows when it is read.
        client.transport.resumeProducing()
        await self.over(client, server, reason="server-reset")

    async def test_nothing_is_read_for_nobody(self) -> None:
        """When the server is gone, a client that keeps sending is ended, not listened to."""
        client, server = await self.start()
        server.send(b"bye")
        server.finish()
        await client.has_all()
        server.reset()
        while client.lost is None:
            client.send(bytes(1000))
            await self.turn()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "server-reset")
        self.assertEqual(bytes(client.received), b"bye")
        self.assertLess(result.bytes_in, _MiB)

    async def test_reset_comes_after_the_bytes_before_it(self) -> None:
        client, server = await self.start()
        client.transport.pauseProducing()
        server.send(bytes(_MiB))
        await self.taken(server)
        server.reset()
        await self.turn(50)
        client.transport.resumeProducing()
        await self.over(client, server, reason="server-reset")
        self.assertEqual(len(client.received), _MiB)
        self.assertTrue(client.was_reset())

    async def test_endings_that_meet(self) -> None:
        """A server that finishes when the client has just broken off still gets all, and then the reset."""
        client, server = await self.start()
        server.transport.pauseProducing()
        client.send(bytes(_MiB))
        await self.taken(client)
        client.reset()
        server.finish()
        await self.turn(50)
        server.transport.resumeProducing()
        await self.over(server, reason="client-reset")
        self.assertEqual(len(server.received), _MiB)
        self.assertTrue(server.was_reset())

    async def over_late(self, *peers: Peer, reason: str, is_late: bool) -> None:
        result = await self.over(*peers)
        self.assertEqual(result.reason, reason)
        self.assert_late(result, is_late=is_late)

    def assert_late(self, result: RelayResult, *, is_late: bool) -> None:
        self.assertEqual(result.reset, "late" if is_late and self.finds_late else "")

    async def test_both_have_gone(self) -> None:
        """A client that has closed cannot take the server's farewell, and nobody waits for that when the server breaks off."""
        # A record has a header, a type and a tag (RFC 8446, section 5.2), and the client may acknowledge it later.
        longest = 128 - 22 if self.peer_wires else 128
        for farewell, is_late in ((24, True), (longest, True), (1000, False)):
            client, server = await self.start()
            client.send(b"quit")
            client.close()
            await server.has_all()
            server.send(bytes(farewell))
            await self.taken(server)
            server.reset()
            result = await self.over(client, server)
            self.assertIn(result.reason, {"client-reset", "server-reset"})
            self.assert_late(result, is_late=is_late)

    async def test_both_reset(self) -> None:
        """Peers that end at the same time had said all, unless much is under way; one that stays had not."""
        # A close-notify is a record like all others: only without TLS, it is known before it is read.
        finds_close = self.is_client_plain or not self.peer_wires
        for how in ("reset", "close", ""):
            client, server = await self.start()
            client.send(b"quit")
            await server.has(4)
            await self.acknowledged()
            server.reset()
            if how:
                getattr(client, how)()
            result = await self.over(client, server)
            self.assertIn(
                result.reason, {"client-reset", "server-reset"} if how else {"server-reset"}
            )
            is_found = finds_close if how == "close" else how == "reset"
            self.assert_late(result, is_late=is_found)

    async def test_reset_after_the_client_has_finished(self) -> None:
        """A server that has all and only breaks off its end cuts nothing; one that may have been answering does."""
        for answer, is_late in ((0, True), (128, True), (129, False), (_MiB, False)):
            client, server = await self.start()
            client.send(b"quit")
            client.finish()
            await server.has_all()
            server.send(bytes(answer))
            await client.has(answer)
            await self.acknowledged()
            server.reset()
            await self.over_late(client, reason="server-reset", is_late=is_late)
            self.assertTrue(client.was_reset())

    async def test_reset_by_a_server_that_has_not_taken_all(self) -> None:
        client, server = await self.start(small_buffers=True)
        server.transport.pauseProducing()
        client.send(bytes(8 * BUFFERS))
        client.finish()
        await self.standstill(client)
        server.reset()
        await self.over_late(client, reason="server-reset", is_late=False)

    async def test_what_a_server_refuses_after_its_end(self) -> None:
        for count, is_late in ((24, True), (1000, False)):
            client, server = await self.start()
            server.send(b"bye")
            server.close()
            await client.has_all()
            client.send(bytes(count))
            await self.standstill(client)
            if self.relay.ending:  # some hear of it only when they send again
                await self.over_late(client, server, reason="server-reset", is_late=is_late)
            else:
                self.relay.abort("killed")
                await self.over(client, server)

    async def test_reset_in_an_answer(self) -> None:
        """A client that has finished reads on; so it does when the server's end is known, and waits behind the answer."""
        for has_ended in (False, True):
            client, server = await self.start(small_buffers=True)
            client.finish()
            await server.has_all()
            client.transport.pauseProducing()
            server.send(bytes(_MiB))
            if has_ended:
                server.close()
            await self.standstill(client)
            client.reset()
            await self.over_late(client, reason="client-reset", is_late=False)
