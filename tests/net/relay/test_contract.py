"""What every relay must do, over real sockets in each way."""

import itertools
import socket

from twisted.internet.task import Clock

from tests.net.relay.relay_case import BUFFERS, RelayCase, Way
from tests.net.relay.wiring import (
    LeanTcpWiring,
    LeanUnixWiring,
    TlsOfClientWiring,
    TlsOfServerWiring,
    TlsOnTransportsWiring,
    TlsWiring,
    UnixWiring,
)
from tests.support.examples import has_turn
from tests.support.kit import Peer, for_each, reactor
from txmux.net.relay.interface import RelayResult, Timeouts

_MiB = 2**20
_RATE = 1 << 30


def _with_turns(always: tuple[Way, ...], by_turns: tuple[Way, ...]) -> tuple[Way, ...]:
    return (*always, *(way for number, way in enumerate(by_turns) if has_turn(f"relay {number}")))


if "epoll" in type(reactor).__module__:
    _WAYS = _with_turns(
        (
            Way(), Way(LeanTcpWiring), Way(TlsWiring, TlsWiring),
            Way(TlsOfClientWiring, TlsOfServerWiring),
            Way(TlsOfServerWiring, TlsOfClientWiring, is_client_plain=True), Way(rate=_RATE),
            Way(on_transports=True), Way(is_client_on_transport=True), Way(is_watched=True),
        ),
        (
            # A transport of Twisted's may have closed its socket by then.
            Way(TlsOnTransportsWiring, TlsOnTransportsWiring, finds_late=False),
            Way(LeanTcpWiring, rate=_RATE),
            Way(TlsWiring, TlsWiring, rate=_RATE),
            Way(on_transports=True, rate=_RATE),
            Way(TlsWiring, TlsWiring, is_watched=True),
            Way(LeanTcpWiring, is_watched=True),
        ),
    )  # fmt: skip
    _MORE = Way(UnixWiring, on_transports=True), Way(LeanUnixWiring, is_watched=True)
    _UNIX_WAYS = _with_turns(
        (Way(UnixWiring), Way(LeanUnixWiring)), (Way(UnixWiring, rate=_RATE), *_MORE)
    )
else:  # as in a process of `test_kernel.ReactorsTest`
    _WAYS = (Way(LeanTcpWiring), Way(is_watched=True), Way(LeanTcpWiring, is_watched=True))
    _UNIX_WAYS = (Way(LeanUnixWiring, is_watched=True),)


@for_each("way", (*_WAYS, *_UNIX_WAYS))
class OrderTest(RelayCase):
    """Bytes, half-closes and slow readers."""

    timeout = 600  # of all ways together

    async def test_client_half_close(self) -> None:
        """Also one from before the relay."""
        for early in (b"", b"all I have to say"):
            client, server = await self.start(pending=early, client_finished=bool(early))
            if not early:
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
        await client.has_all(server.finish)
        client.send(b"one more thing")
        client.close()
        result = await self.over(client, server)
        self.assertEqual(bytes(server.received), b"one more thing")
        self.assertEqual(result, RelayResult("done", bytes_in=14, bytes_out=12))
        self.assertEqual(self.began, [True, False])

    async def test_all_comes_after_a_stall(self) -> None:
        """Whoever is stalled, and also to one that has finished, be it meanwhile."""
        stalled = []
        for reads, finishes in itertools.product((0, 1), ("", "before", "meanwhile")):
            peers = await self.start(small_buffers=True)
            reader, writer = peers[reads], peers[not reads]
            if finishes == "before":
                await writer.has_all(reader.finish)
            stalled.append((reader, await self.stall(reader, writer)))
            if finishes == "meanwhile":
                await writer.has_all(reader.finish)
        await self.assert_rests()
        for reader, producer in stalled:
            self.assertLess(producer.written, producer.limit)
            reader.transport.resumeProducing()
            await reader.has(producer.limit)
            self.assertEqual(len(reader.received), producer.limit)
            self.assertEqual(bytes(reader.received[-len(producer.chunk) :]), producer.chunk)

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
        await server.tell(client, b"heard")


@for_each("way", (*_WAYS, *_UNIX_WAYS))
class TimeTest(RelayCase):
    timeout = 600

    async def test_idle_and_half_closed_and_silent(self) -> None:
        for timeouts, reason in (
            (Timeouts(idle=10), "idle-timeout"), (Timeouts(half_close=10), "half-close-timeout"),
        ):  # fmt: skip
            clock = Clock()
            client, server = await self.start(timeouts=timeouts, clock=clock)
            if reason == "idle-timeout":
                clock.advance(9)
                await client.tell(server, b"x")
            else:
                await server.has_all(client.finish)
            clock.advance(9)
            await server.tell(client, b"y")
            await self.acknowledged()
            clock.advance(9.9)
            self.assertEqual(self.results, [])
            clock.advance(0.2)
            await self.over(client, server, reason=reason)
            self.assertEqual(clock.getDelayedCalls(), [])

    async def test_max_duration(self) -> None:
        clock = Clock()
        timeouts = Timeouts(idle=4, max_duration=10)
        client, server = await self.start(timeouts=timeouts, clock=clock)
        for count in range(1, 4):
            clock.advance(3)
            await client.tell(server, b"x", count)
        clock.advance(1)
        await self.over(client, server, reason="max-duration")
        self.assert_broken_off(client)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_abort(self) -> None:
        """Also of a relay that is stalled."""
        client, server = await self.start()
        self.relay.abort("drained")
        await self.over(client, server, reason="drained")
        self.assert_broken_off(client, server)
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
        await server.has_all(client.finish)
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
        if self.wiring.family != socket.AF_INET or self.way.peer_wires:
            return
        server.transport.pauseProducing()
        client.send(b"a" * 3_000_000)
        await self.standstill(client)
        handle: socket.socket = client.transport.getHandle()
        server.transport.resumeProducing()
        await server.has(3_000_000)
        client.send(b"b" * 1_000_000)
        await self.taken(client)
        handle.send(b"!", socket.MSG_OOB)
        client.send(b"c" * 1000)
        await server.has_all(client.finish)
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

    async def test_reader_has_the_whole_time_to_read_on(self) -> None:
        """That is so however soon after the first look the time would be over."""
        clock = Clock()
        client, server = await self.start(timeouts=Timeouts(idle=10), clock=clock)
        client.transport.pauseProducing()
        clock.advance(1)
        server.send(b"x" * 10_000_000)
        await self.standstill(server)
        clock.advance(9)
        clock.advance(9)
        self.assertFalse(self.relay.ending)
        client.transport.resumeProducing()
        await client.has(10_000_000)
        server.close()
        client.close()
        await self.over(client, server, reason="done")


@for_each("way", _WAYS)
class ResetTest(RelayCase):
    """A reset is passed on as a reset, after what came before it; for sockets that know resets."""

    timeout = 600

    async def test_reset_after_all_was_said(self) -> None:
        client, server = await self.start()
        client.transport.pauseProducing()
        server.send(bytes(_MiB))
        server.finish()
        await self.taken(server)
        await server.is_lost(server.reset)
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
        await client.has_all(server.finish)
        server.reset()
        while client.lost is None:
            client.send(bytes(1000))
            await self.turn()
        result = await self.over(client, server)
        self.assertEqual((result.reason, bytes(client.received)), ("server-reset", b"bye"))
        self.assertLess(result.bytes_in, _MiB)

    async def test_reset_comes_after_the_bytes_before_it(self) -> None:
        """So it does to a server that finishes when the client has just broken off."""
        for breaker, reason in ((1, "server-reset"), (0, "client-reset")):
            peers = await self.start()
            sender, reader = peers[breaker], peers[not breaker]
            reader.transport.pauseProducing()
            sender.send(bytes(_MiB))
            await self.taken(sender)
            sender.reset()
            if reason == "client-reset":
                reader.finish()
            await self.turn(50)
            reader.transport.resumeProducing()
            await self.over(reader, reason=reason)
            self.assertEqual(len(reader.received), _MiB)
            self.assertTrue(reader.was_reset())

    async def over_late(self, *peers: Peer, reason: str, is_late: bool) -> None:
        result = await self.over(*peers)
        self.assertEqual(result.reason, reason)
        self.assert_late(result, is_late=is_late)

    def assert_late(self, result: RelayResult, *, is_late: bool) -> None:
        self.assertEqual(result.reset, "late" if is_late and self.way.finds_late else "")

    async def test_both_have_gone(self) -> None:
        """A client that has closed cannot take the server's farewell, and nobody waits for that when the server breaks off."""
        # A record has a header, a type and a tag (RFC 8446, section 5.2), and the client may acknowledge it later.
        longest = 128 - 22 if self.way.peer_wires else 128
        for farewell, is_late in ((24, True), (longest, True), (1000, False)):
            client, server = await self.start()
            client.send(b"quit")
            await server.has_all(client.close)
            server.send(bytes(farewell))
            await self.taken(server)
            server.reset()
            result = await self.over(client, server)
            self.assertIn(result.reason, {"client-reset", "server-reset"})
            self.assert_late(result, is_late=is_late)

    async def test_both_reset(self) -> None:
        """Peers that end at the same time had said all, unless much is under way; one that stays had not."""
        # A close-notify is a record like all others: only without TLS, it is known before it is read.
        finds_close = self.way.is_client_plain or not self.way.peer_wires
        for how in ("reset", "close", ""):
            client, server = await self.start()
            await client.tell(server, b"quit")
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
            await server.has_all(client.finish)
            await server.tell(client, bytes(answer), answer)
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
            await client.has_all(server.close)
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
            await server.has_all(client.finish)
            client.transport.pauseProducing()
            server.send(bytes(_MiB))
            if has_ended:
                server.close()
            await self.standstill(client)
            client.reset()
            await self.over_late(client, reason="client-reset", is_late=False)
