"""The portable relay keeps the relays' contract, held to a rate or not."""

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.net.relay.contract import (
    LeanCase,
    OrderContract,
    PortableCase,
    RelayCase,
    ResetContract,
    UnixCase,
)
from tests.net.relay.wiring import Sides
from tests.support.peers import reactor
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peers import Peer
from txmux.net.relay.portable import RelayRates
from txmux.net.relay.relay import Relay
from txmux.testing import WaterMarkTransport


class PortableRelayTest(PortableCase, OrderContract, ResetContract, TestCase):
    async def test_endings_in_one_turn(self) -> None:
        client, server = await self.start()
        server.transport.pauseProducing()
        size = 1024 * 1024
        client.send(bytes(size))
        relayed: Any = self.relay
        while relayed._client.received < size:
            await deferLater(reactor, 0)
        client.reset()
        while not relayed._client.is_closed:
            await deferLater(reactor, 0)
        self.ends[1].readConnectionLost()
        server.transport.resumeProducing()
        await self.over(server, reason="client-reset")
        self.assertEqual(len(server.received), size)
        self.assertTrue(server.was_reset())


class PortableUnixTest(PortableCase, UnixCase, OrderContract, TestCase):
    """Over UNIX sockets of Twisted's."""


class PortableLeanTest(PortableCase, LeanCase, OrderContract, ResetContract, TestCase):
    """Over TCP sockets that the reactor does not serve."""


_FAST = RelayRates(1 << 30, 1 << 30)


class _Fast:
    def make_sides(self, clock: Any, client: Peer, server: Peer) -> Sides:
        return _FAST.make_sides(clock, client, server)


class PacedRelayTest(_Fast, OrderContract, ResetContract, TestCase):
    """The contract, over TCP sockets of Twisted's."""


class PacedUnixTest(_Fast, UnixCase, OrderContract, TestCase):
    """The contract, over UNIX sockets."""


class PacedLeanTest(_Fast, LeanCase, OrderContract, ResetContract, TestCase):
    """The contract, over TCP sockets that the reactor does not serve."""


class _Waiting:
    def data_received(self, data: bytes) -> None: ...
    def peer_finished(self) -> None: ...
    def connection_lost(self, reason: object) -> None: ...


class _Case(SynchronousTestCase):
    def relay(
        self,
        rates: RelayRates,
        pending: bytes = b"",
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008
    ) -> None:
        self.clock = Clock()
        self.results: list[RelayResult] = []
        self.client, self.server = WaterMarkTransport(), WaterMarkTransport()
        client, server = Peer(), Peer()
        for transport, end in ((self.client, client), (self.server, server)):
            end.receiver = _Waiting()
            transport.connect(end)
        client.receiver, server.receiver = sides = rates.make_sides(self.clock, client, server)
        self.running = Relay(self.clock, timeouts, self.results.append, sides)
        self.running.start(pending, client_finished=False)

    def taken(self, transport: WaterMarkTransport, seconds: float, step: float = 0.01) -> int:
        count = 0
        for _ in range(round(seconds / step)):
            count += len(transport.take())
            self.clock.advance(step)
        return count + len(transport.take())

    def assert_near(self, count: int, expected: float, within: float) -> None:
        self.assertLessEqual(abs(count - expected), within, f"{count} is not {expected}")

    def assert_over(self, reason: str) -> RelayResult:
        (result,) = self.results
        self.assertEqual(result.reason, reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return result


class RateTests(_Case):
    def test_exact(self) -> None:
        """Over ten seconds either limit is met within 5 per cent, whatever it is and however late timers are."""
        for rate in (1, 7, 100, 5_000, 1_000_000, 20_000_000):
            for step in (0.001, 0.05) if rate < 10_000_000 else (0.01,):
                for rates in (RelayRates(upload=rate), RelayRates(download=rate)):
                    self.relay(rates)
                    self.client.high_water = self.server.high_water = rate
                    source, target = (
                        (self.client, self.server) if rates.upload else (self.server, self.client)
                    )
                    for _ in range(rate * 11 // 65536 + 1):
                        source.deliver(bytes(65536))
                    count = self.taken(target, 10, step)
                    # Two bytes go at once, which is much if there are but ten of them.
                    self.assert_near(count, 10 * rate, max(2, 0.05 * 10 * rate))

    def test_other_direction(self) -> None:
        self.relay(RelayRates(upload=1000))
        self.server.deliver(bytes(50_000))
        self.assertEqual(len(self.client.take()), 50_000)

    def test_both(self) -> None:
        self.relay(RelayRates(1000, 2000))
        self.client.deliver(bytes(65536))
        self.server.deliver(bytes(65536))
        self.clock.advance(0)
        self.assertEqual((len(self.server.take()), len(self.client.take())), (100, 200))
        for _ in range(100):
            self.clock.advance(0.01)
        for transport, rate in ((self.server, 1000), (self.client, 2000)):
            self.assert_near(len(transport.take()), rate, 0.02 * rate)

    def test_burst_is_a_tenth_of_a_second(self) -> None:
        self.relay(RelayRates(upload=1000))
        self.client.deliver(bytes(100))
        self.assertEqual(len(self.server.take()), 100)
        self.clock.advance(60)
        self.client.deliver(bytes(5000))
        self.assertEqual(len(self.server.take()), 100)

    def test_pending(self) -> None:
        sent = bytes(range(256)) * 40
        self.relay(RelayRates(upload=2000), sent[:3000])
        received = bytearray()
        for at in range(3000, len(sent), 100):
            self.client.deliver(sent[at : at + 100])
        for _ in range(600):
            received += self.server.take()
            self.clock.advance(0.01)
        self.assertEqual(bytes(received), sent)

    def test_source_is_held_back(self) -> None:
        self.relay(RelayRates(upload=1000))
        for _ in range(10):
            self.client.deliver(bytes(1000))
        self.assertTrue(self.client.paused)
        self.assertLess(self.running._server.unsent(), 1001)
        self.taken(self.server, 11)
        self.assertFalse(self.client.paused)

    def test_slow_reader(self) -> None:
        self.relay(RelayRates(upload=1_000_000))
        for _ in range(100):
            self.client.deliver(bytes(10_000))
        for _ in range(500):
            self.clock.advance(0.01)
        self.assertTrue(self.client.paused)
        self.assertLess(len(self.server.unsent), 3 * 65536)
        self.assertEqual(self.taken(self.server, 2), 1_000_000)
        self.assertFalse(self.client.paused)


class EndTests(_Case):
    """How such a connection ends: in all as any other does, only later."""

    def test_half_close(self) -> None:
        self.relay(RelayRates(upload=1000))
        self.client.deliver(bytes(600))
        self.client.finish()
        early = self.taken(self.server, 0.4)
        self.assert_near(early, 500, 20)
        self.assertFalse(self.server.finished)
        self.assertEqual(early + self.taken(self.server, 0.2), 600)
        self.assertTrue(self.server.finished)
        self.server.deliver(b"answer")
        self.server.finish()
        self.assertEqual(self.client.take(), b"answer")
        self.server.take()
        self.assertEqual(self.assert_over("done"), RelayResult("done", 600, 6))

    def test_both_finish(self) -> None:
        self.relay(RelayRates(1000, 1000))
        for transport in (self.client, self.server):
            transport.deliver(bytes(1100))
            transport.finish()
        self.assertEqual(self.taken(self.server, 2), 1100)
        self.assertEqual(self.taken(self.client, 2), 1100)
        self.assert_over("done")

    def test_lost_source_still_sends_held(self) -> None:
        self.relay(RelayRates(download=1000))
        self.server.deliver(bytes(1100))
        self.server._lose(ConnectionDone())
        self.assertEqual(self.taken(self.client, 2), 1100)
        self.assertTrue(self.client.finished or self.client.lost)
        self.taken(self.client, 1)
        self.assert_over("done")

    def test_lost_target_discards_held(self) -> None:
        self.relay(RelayRates(upload=1000))
        self.client.deliver(bytes(1100))
        self.server.reset()
        self.taken(self.client, 1)
        self.assert_over("server-reset")

    def test_nothing_written_after_half_close(self) -> None:
        self.relay(RelayRates(upload=1000))
        paced: Any = self.running._server
        paced.write(bytes(150))
        paced.half_close()
        paced.write(b"more")
        self.assertEqual(self.taken(self.server, 1), 150)
        self.assertTrue(self.server.finished)
        self.running.abort("killed")

    def test_abort(self) -> None:
        self.relay(RelayRates(upload=1000))
        self.client.deliver(bytes(1100))
        self.running.abort("killed")
        self.client.take()
        self.server.take()
        self.assert_over("killed")

    def test_time_limits_begin_when_held_is_sent(self) -> None:
        for timeouts, reason in (
            (Timeouts(idle=1.5), "idle-timeout"),
            (Timeouts(half_close=1.5), "half-close-timeout"),
        ):
            self.relay(RelayRates(upload=100), timeouts=timeouts)
            self.client.deliver(bytes(1000))
            if reason == "half-close-timeout":
                self.client.finish()
            early = self.taken(self.server, 9.5)
            self.assert_near(early, 960, 2)
            self.assertEqual(self.results, [])
            self.assertEqual(early + self.taken(self.server, 4), 1000)
            self.client.take()
            self.assert_over(reason)


class RealTests(RelayCase, TestCase):
    """Over real sockets, in real time."""

    def make_sides(self, clock: Any, client: Peer, server: Peer) -> Sides:
        return RelayRates(download=2_000_000).make_sides(clock, client, server)

    async def test_half_a_second(self) -> None:
        client, server = await self.start()
        began = reactor.seconds()
        server.send(bytes(1_000_000))
        server.close()
        await client.has(1_000_000)
        self.assertGreater(reactor.seconds() - began, 0.4)
        self.assertEqual((await self.over(client, server)).reason, "done")
