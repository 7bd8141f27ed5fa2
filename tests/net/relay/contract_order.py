"""What every relay must do as long as nobody breaks off."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock

from tests.net.relay.contract import RelayCase
from txmux.net.relay.interface import RelayResult, Timeouts


class OrderContract(RelayCase):
    """Bytes, half-closes, slow readers, and time."""

    async def test_carries_both_ways(self) -> None:
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
        client, server = await self.start(pending=b"first ")
        client.send(b"second")
        await server.has(12)
        self.assertEqual(bytes(server.received), b"first second")

    async def test_client_half_close(self) -> None:
        client, server = await self.start()
        client.send(b"all I have to say")
        client.finish()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"all I have to say")
        await self.assert_rests()
        server.send(b"heard")
        server.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(client.received), b"heard")
        self.assertEqual(result.reason, "done")

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

    async def test_stalled_client(self) -> None:
        client, server = await self.start(small_buffers=True)
        producer = await self.stall(client, server)
        await self.assert_rests()
        client.transport.resumeProducing()
        await client.has(producer.limit)
        self.assertEqual(len(client.received), producer.limit)
        self.assertEqual(bytes(client.received[-len(producer.chunk) :]), producer.chunk)

    async def test_stalled_server(self) -> None:
        client, server = await self.start(small_buffers=True)
        producer = await self.stall(server, client)
        await self.assert_rests()
        server.transport.resumeProducing()
        await server.has(producer.limit)
        self.assertEqual(len(server.received), producer.limit)
        self.assertEqual(bytes(server.received[-len(producer.chunk) :]), producer.chunk)

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
        result = await self.over(client, server)
        self.assertEqual(result.reason, "idle-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def one_way(self, timeouts: Timeouts, *, upload: bool) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=timeouts, clock=clock)
        watched, other = (client, server) if upload else (server, client)
        clock.advance(9)
        watched.send(b"x")
        await other.has(1)
        for count in range(1, 4):
            clock.advance(3)
            other.send(b"y")
            await watched.has(count)
        self.assertEqual(self.results, [])
        await self.acknowledged()
        clock.advance(1.1)
        result = await self.over(client, server)
        self.assertEqual(result.reason, "idle-timeout")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_idle_upload(self) -> None:
        await self.one_way(Timeouts(idle=100, upload_idle=10), upload=True)

    async def test_idle_download(self) -> None:
        await self.one_way(Timeouts(idle=100, download_idle=10), upload=False)

    async def test_idle_upload_with_a_slow_server(self) -> None:
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(upload_idle=10), clock=clock)
        server.transport.pauseProducing()
        client.send(b"x" * 20_000_000)
        await self.standstill(client)
        clock.advance(10.1)
        await self.turn(5)
        self.assertEqual(self.results, [])
        server.transport.resumeProducing()
        await server.has(20_000_000)
        await self.acknowledged()
        clock.advance(9.9)
        self.assertEqual(self.results, [])
        clock.advance(0.2)
        result = await self.over(client, server)
        self.assertEqual(result.reason, "idle-timeout")

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
        result = await self.over(client, server)
        self.assertEqual(result.reason, "half-close-timeout")
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
        result = await self.over(client, server)
        self.assertEqual(result.reason, "max-duration")
        self.assert_broken_off(client)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_abort(self) -> None:
        client, server = await self.start()
        self.relay.abort("drained")
        result = await self.over(client, server)
        self.assertEqual(result.reason, "drained")
        self.assert_broken_off(client, server)

    async def test_abort_of_a_stalled_one(self) -> None:
        client, server = await self.start(small_buffers=True)
        await self.stall(client, server)
        self.relay.abort("killed")
        client.transport.resumeProducing()
        result = await self.over(client, server)
        self.assertEqual(result.reason, "killed")

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
        result = await self.over(client, server)
        self.assertEqual(len(client.received), size)
        self.assertEqual(result.reason, "done")

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
        if self.make_wiring().family != socket.AF_INET:
            return
        client, server = await self.start()
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
        result = await self.over(client, server)
        self.assertEqual(result.reason, "done")

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
                del self.ends
