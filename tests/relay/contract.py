"""What every relay must do, over real sockets. A test module mixes this with a `TestCase` and names a relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock, deferLater
from zope.interface import directlyProvides

from tests.support.peers import PeerFactory, connect, listen, reactor
from txmux.relay.ends import End
from txmux.relay.interface import RelayResult, Timeouts

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base

    from tests.support.peers import Peer
    from txmux.relay.interface import Relay
else:
    _Base = object


class _Held(End):
    """An end that waits for a relay; nothing must reach it before."""

    class receiver:  # noqa: N801
        lost = staticmethod(lambda _reason: None)


class RelayContract(_Base):
    """The tests; `make_relay` is what a subclass adds."""

    timeout = 10

    def make_relay(self, clock: Any, timeouts: Timeouts, on_over: Any) -> Relay:
        raise NotImplementedError

    async def start(
        self,
        pending: bytes = b"",
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        *,
        client_finished: bool = False,
        clock: Any = None,
    ) -> tuple[Peer, Peer]:
        """Put a relay between two peers: the client and the server."""
        self.results: list[RelayResult] = []
        self.ends: list[_Held] = []
        factory = PeerFactory(_Held)  # type: ignore[arg-type]
        port = listen(self, factory)
        client = await connect(self, port)
        client_end: Any = await factory.peer(0)
        server = await connect(self, port)
        server_end: Any = await factory.peer(1)
        self.ends = [client_end, server_end]
        if client_finished:
            client.finish()
            client_end.transport.pauseProducing()
        self.relay = self.make_relay(clock or reactor, timeouts, self.results.append)
        self.relay.start(client_end, server_end, pending, client_finished=client_finished)
        return client, server

    def held(self) -> int:
        """Bytes that wait in this process, on both ends."""
        transports: list[Any] = [end.transport for end in self.ends]
        return sum(
            len(transport.dataBuffer) - transport.offset + transport._tempDataLen
            for transport in transports
        )

    async def over(self, *peers: Peer) -> RelayResult:
        """Wait until the relay is over and the peers know it."""
        for peer in peers:
            await peer.has_all()
            await peer.is_lost()
        await self.until_over()
        self.assertEqual(len(self.results), 1)
        return self.results[0]

    async def until_over(self) -> None:
        while not self.results:
            await deferLater(reactor, 0)

    async def test_carries_both_ways(self) -> None:
        """What either side sends reaches the other, and is counted."""
        client, server = await self.start()
        client.send(b"question")
        await server.has(8)
        server.send(b"the answer")
        await client.has(10)
        client.close()
        server.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(server.received), b"question")
        self.assertEqual(bytes(client.received), b"the answer")
        self.assertEqual(result, RelayResult("done", bytes_in=8, bytes_out=10))

    async def test_pending_goes_first(self) -> None:
        """Bytes read before the relay started are sent once, before all others."""
        client, server = await self.start(pending=b"first ")
        client.send(b"second")
        await server.has(12)
        self.assertEqual(bytes(server.received), b"first second")

    async def test_client_half_close(self) -> None:
        """A client that has finished sending still gets its answer."""
        client, server = await self.start()
        client.send(b"all I have to say")
        client.finish()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"all I have to say")
        server.send(b"heard")
        server.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(client.received), b"heard")
        self.assertEqual(result.reason, "done")

    async def test_server_half_close(self) -> None:
        """A server that has finished sending still hears the client out."""
        client, server = await self.start()
        server.send(b"goodbye")
        server.finish()
        await client.has_all()
        client.send(b"one more thing")
        client.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(server.received), b"one more thing")
        self.assertEqual(result, RelayResult("done", bytes_in=14, bytes_out=7))

    async def test_client_finished_before(self) -> None:
        """A half-close that came before the relay is passed on, after the pending bytes."""
        client, server = await self.start(pending=b"all of it", client_finished=True)
        await server.has_all()
        self.assertEqual(bytes(server.received), b"all of it")
        server.send(b"answer")
        server.close()
        await self.over(client, server)
        self.assertEqual(bytes(client.received), b"answer")

    async def test_client_reset(self) -> None:
        """A client that breaks off is a broken connection for the server, after what came before."""
        client, server = await self.start()
        client.send(b"unfinished sent")
        await server.has(15)
        client.reset()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "client-reset")
        self.assertTrue(server.was_reset())

    async def test_server_reset(self) -> None:
        """A server that breaks off is a broken connection for the client: never a complete answer."""
        client, server = await self.start()
        server.send(b"half an ans")
        await client.has(11)
        server.reset()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "server-reset")
        self.assertTrue(client.was_reset())

    async def test_reset_after_all_was_said(self) -> None:
        """A server that breaks off after it had finished sending has sent all: none of it is lost."""
        client, server = await self.start()
        client.transport.pauseProducing()
        size = 1024 * 1024
        server.send(bytes(size))
        server.finish()
        relayed: Any = self.relay
        while not relayed._server.has_finished:
            await deferLater(reactor, 0)
        server.reset()
        while not relayed._server.gone:
            client.send(b"x")
            await deferLater(reactor, 0)
        client.transport.resumeProducing()
        result = await self.over(client)
        self.assertEqual(len(client.received), size)
        self.assertFalse(client.was_reset())
        self.assertEqual(result.reason, "server-reset")

    async def test_stalled_client(self) -> None:
        """A client that does not read makes the server wait, and all arrives once it reads again."""
        await self._stalled(lambda client, server: (client, server))

    async def test_stalled_server(self) -> None:
        """The same the other way."""
        await self._stalled(lambda client, server: (server, client))

    async def _stalled(self, roles: Any) -> None:
        reader, writer = roles(*await self.start())
        reader.transport.pauseProducing()
        chunk = bytes(range(256)) * 256
        producer = _Endless(writer.transport, chunk, limit=64 * 1024 * 1024)
        writer.transport.registerProducer(producer, streaming=True)
        producer.resumeProducing()
        await self._standstill(producer)
        self.assertLess(producer.written, producer.limit)
        self.assertLess(self.held(), 1024 * 1024)
        reader.transport.resumeProducing()
        await reader.has(producer.limit)
        self.assertEqual(len(reader.received), producer.limit)
        self.assertEqual(bytes(reader.received[-len(chunk) :]), chunk)

    async def _standstill(self, producer: _Endless) -> None:
        """Wait until the writer has been stopped and nothing moves any more."""
        before = None
        while before != (now := (producer.written, self.held(), producer.paused)) or not now[2]:
            before = now
            for _ in range(50):
                await deferLater(reactor, 0)

    async def test_reset_while_the_other_side_is_stalled(self) -> None:
        """When one side breaks off while the other's buffer is full, both end."""
        client, server = await self.start(timeouts=Timeouts(half_close=0.2))
        client.transport.pauseProducing()
        producer = _Endless(server.transport, bytes(65536), limit=64 * 1024 * 1024)
        server.transport.registerProducer(producer, streaming=True)
        producer.resumeProducing()
        await self._standstill(producer)
        server.transport.unregisterProducer()
        server.reset()
        # What is still on its way to the server cannot tell of its end, so the reset shows when it is read.
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "server-reset")

    async def test_idle(self) -> None:
        """Without a byte either way the connection ends after the idle time, counted from the last one."""
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(idle=10), clock=clock)
        clock.advance(9)
        client.send(b"x")
        await server.has(1)
        clock.advance(9)
        server.send(b"y")
        await client.has(1)
        clock.advance(9.9)
        self.assertEqual(self.results, [])
        clock.advance(0.2)
        result = await self.over(client, server)
        self.assertEqual(result.reason, "idle-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_half_closed_and_silent(self) -> None:
        """After one side has finished, the other may not be silent for long."""
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=5), clock=clock)
        client.finish()
        await server.has_all()
        clock.advance(4)
        server.send(b"still here")
        await client.has(10)
        clock.advance(4)
        self.assertEqual(self.results, [])
        clock.advance(1.1)
        result = await self.over(client, server)
        self.assertEqual(result.reason, "half-close-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_max_duration(self) -> None:
        """A busy connection ends when it has lasted as long as it may."""
        clock = Clock()
        timeouts = Timeouts(idle=4, max_duration=10)
        client, server = await self.start(timeouts=timeouts, clock=clock)
        for count in range(1, 4):
            clock.advance(3)
            client.send(b"x")
            await server.has(count)
        clock.advance(1)
        result = await self.over(client, server)
        self.assertEqual(result.reason, "max-duration")
        self.assertTrue(client.was_reset())
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_abort(self) -> None:
        """Told to end, it breaks both connections off and says why."""
        client, server = await self.start()
        self.relay.abort("drained")
        result = await self.over(client, server)
        self.assertEqual(result.reason, "drained")
        self.assertTrue(client.was_reset())
        self.assertTrue(server.was_reset())

    async def test_nothing_is_read_for_nobody(self) -> None:
        """When the server is gone, a client that keeps sending is ended, not listened to."""
        client, server = await self.start()
        server.send(b"bye")
        server.finish()
        await client.has_all()
        server.reset()
        while client.lost is None:
            client.send(bytes(1000))
            await deferLater(reactor, 0)
        result = await self.over(client, server)
        self.assertEqual(bytes(client.received), b"bye")
        self.assertLess(result.bytes_in, 1024 * 1024)
        self.assertEqual(result.reason, "server-reset")

    async def test_reset_after_flush(self) -> None:
        """A reset comes after the bytes that came before it, however slowly they are taken."""
        client, server = await self.start()
        client.transport.pauseProducing()
        size = 1024 * 1024
        server.send(bytes(size))
        relayed: Any = self.relay
        while relayed._server.received < size:
            await deferLater(reactor, 0)
        server.reset()
        while not relayed._server.gone:
            await deferLater(reactor, 0)
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(len(client.received), size)
        self.assertTrue(client.was_reset())
        self.assertEqual(result.reason, "server-reset")

    async def test_endings_that_meet(self) -> None:
        """A server that finishes when the client has just broken off still gets all, and then the reset."""
        client, server = await self.start()
        server.transport.pauseProducing()
        size = 1024 * 1024
        client.send(bytes(size))
        relayed: Any = self.relay
        while relayed._client.received < size:
            await deferLater(reactor, 0)
        client.reset()
        while not relayed._client.gone:
            await deferLater(reactor, 0)
        self.ends[1].readConnectionLost()  # both came in one turn of the reactor
        server.transport.resumeProducing()
        result = await self.over(server)
        self.assertEqual(len(server.received), size)
        self.assertTrue(server.was_reset())
        self.assertEqual(result.reason, "client-reset")

    async def test_a_slow_reader_gets_all(self) -> None:
        """Time-outs after a close do not cut off a reader that still takes what was sent."""
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=60), clock=clock)
        client.transport.pauseProducing()
        client.finish()
        size = 8 * 1024 * 1024
        server.send(bytes(size))
        server.close()
        while len(client.received) < size:
            clock.advance(4)
            client.transport.resumeProducing()
            wanted = min(size, len(client.received) + 1)
            await client.until(lambda: len(client.received) >= wanted or client.lost is not None)  # noqa: B023
            self.assertIsNone(client.lost)
            client.transport.pauseProducing()
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(len(client.received), size)
        self.assertEqual(result.reason, "done")

    async def test_a_reader_that_never_reads_is_cut_off(self) -> None:
        """When both have finished, what a dead reader has not taken is dropped after the half-close time."""
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(half_close=5), clock=clock)
        client.transport.pauseProducing()
        client.finish()
        await server.has_all()
        server.send(bytes(32 * 1024 * 1024))
        server.close()
        while not self.results:
            await deferLater(reactor, 0)
            clock.advance(5)
        client.transport.resumeProducing()
        await self.over(client, server)
        self.assertEqual(clock.getDelayedCalls(), [])


class _Endless:
    """Writes the same bytes again and again, as long as the transport takes them."""

    def __init__(self, transport: Any, chunk: bytes, limit: int) -> None:
        directlyProvides(self, IPushProducer)
        self._transport = transport
        self._chunk = chunk
        self.limit = limit
        self.written = 0
        self.paused = False

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.written < self.limit:
            self.written += len(self._chunk)
            self._transport.write(self._chunk)

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True
