import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.relay_case import RelayCase, Way
from tests.net.relay.wiring import LeanUnixWiring, TcpWiring, TlsWiring, make_sides
from tests.support.peers import reactor
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.paced import PacedEnd, RelayRates
from txmux.net.relay.peers import Peer
from txmux.net.relay.relay import Relay
from txmux.net.sockets.poller import WRITE, ReactorPoller
from txmux.testing import WaterMarkTransport


class _Waiting:
    def data_received(self, data: bytes) -> None: ...
    def peer_finished(self) -> None: ...
    def connection_lost(self, reason: object) -> None: ...


class PacedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.private = PrivateReactor("select")
        self.addCleanup(self.private.close)
        self.poller = ReactorPoller(self.private.reactor)

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
        client.receiver, server.receiver = sides = make_sides(self.poller, client, server)
        self.running = Relay(self.clock, timeouts, self.results.append, sides)
        sides[0].limit_rate(rates.download)
        sides[1].limit_rate(rates.upload)
        self.running.start(pending, client_finished=False)
        self.private.turn()

    def take(self, transport: WaterMarkTransport) -> bytes:
        taken = transport.take()
        while self.poller.soon:
            self.private.turn()
            taken += transport.take()
        return taken

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while self.poller.soon:
            self.private.turn()

    def taken(self, transport: WaterMarkTransport, seconds: float, step: float = 0.01) -> int:
        count = 0
        for _ in range(round(seconds / step)):
            count += len(self.take(transport))
            self.advance(step)
        return count + len(self.take(transport))

    def assert_near(self, count: int, expected: float, within: float) -> None:
        self.assertLessEqual(abs(count - expected), within, f"{count} is not {expected}")

    def assert_over(self, reason: str) -> RelayResult:
        (result,) = self.results
        self.assertEqual((result.reason, self.clock.getDelayedCalls()), (reason, []))
        return result

    def test_none_while_nothing_may_be_sent(self) -> None:
        """A poller that reported room again and again would keep a core busy."""
        own, other = socket.socketpair()
        with own, other:
            own.settimeout(0)
            clock, held, sent = Clock(), bytearray(500), list[int]()
            end = PacedEnd(own, self.poller, clock, 1000, has_burst=True)

            def send(_: int) -> None:
                sent.append(end.send(bytes(held)))
                del held[: sent[-1]]

            end.watch(own.fileno(), WRITE, send)
            for count in (100, 20, 20):
                for _ in range(5):
                    self.private.turn()
                self.assertEqual(sent, [count])
                sent.clear()
                clock.advance(0.02)
            end.closing(own.fileno())
            self.assertEqual(clock.getDelayedCalls(), [])

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

    def test_both(self) -> None:
        self.relay(RelayRates(1000, 2000))
        self.client.deliver(bytes(65536))
        self.server.deliver(bytes(65536))
        self.advance(0)
        self.assertEqual((len(self.take(self.server)), len(self.take(self.client))), (100, 200))
        for _ in range(100):
            self.advance(0.01)
        for transport, rate in ((self.server, 1000), (self.client, 2000)):
            self.assert_near(len(self.take(transport)), rate, 0.02 * rate)

    def test_burst_is_a_tenth_of_a_second(self) -> None:
        """The other direction has no limit."""
        self.relay(RelayRates(upload=1000))
        self.server.deliver(bytes(50_000))
        self.assertEqual(len(self.take(self.client)), 50_000)
        self.client.deliver(bytes(100))
        self.assertEqual(len(self.take(self.server)), 100)
        self.advance(60)
        self.client.deliver(bytes(5000))
        self.assertEqual(len(self.take(self.server)), 100)

    def test_pending(self) -> None:
        sent = bytes(range(256)) * 40
        self.relay(RelayRates(upload=2000), sent[:3000])
        received = bytearray()
        for at in range(3000, len(sent), 100):
            self.client.deliver(sent[at : at + 100])
        for _ in range(600):
            received += self.take(self.server)
            self.advance(0.01)
        self.assertEqual(bytes(received), sent)

    def test_slow_reader(self) -> None:
        """The source is held back, as it is by the rate."""
        self.relay(RelayRates(upload=1000))
        for _ in range(10):
            self.client.deliver(bytes(1000))
        self.assertTrue(self.client.paused)
        self.assertLess(self.running.server.unsent(), 1001)
        self.taken(self.server, 11)
        self.assertFalse(self.client.paused)
        self.relay(RelayRates(upload=1_000_000))
        for _ in range(100):
            self.client.deliver(bytes(10_000))
        for _ in range(500):
            self.advance(0.01)
        self.assertTrue(self.client.paused)
        self.assertLess(len(self.server.unsent), 3 * 65536)
        self.assertEqual(self.taken(self.server, 2), 1_000_000)
        self.assertFalse(self.client.paused)

    # How such a connection ends: in all as any other does, only later.

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
        self.assertEqual(self.take(self.client), b"answer")
        self.take(self.server)
        self.assertEqual(self.assert_over("done"), RelayResult("done", 600, 6))

    def test_both_finish(self) -> None:
        """What is held of a source that is lost is sent, too."""
        self.relay(RelayRates(1000, 1000))
        for transport in (self.client, self.server):
            transport.deliver(bytes(1100))
            transport.finish()
        self.assertEqual((self.taken(self.server, 2), self.taken(self.client, 2)), (1100, 1100))
        self.assert_over("done")
        self.relay(RelayRates(download=1000))
        self.server.deliver(bytes(1100))
        self.server._lose(ConnectionDone())
        self.assertEqual(self.taken(self.client, 2), 1100)
        self.assertTrue(self.client.finished or self.client.lost)
        self.taken(self.client, 1)
        self.assert_over("done")

    def test_lost_target_and_abort_discard_held(self) -> None:
        for reason in ("server-reset", "killed"):
            self.relay(RelayRates(upload=1000))
            self.client.deliver(bytes(1100))
            if reason == "killed":
                self.running.abort(reason)
            else:
                self.server.reset()
            self.taken(self.client, 1)
            self.take(self.server)
            self.assert_over(reason)

    def test_time_limits_begin_when_held_is_sent(self) -> None:
        for timeouts, reason in (
            (Timeouts(idle=1.5), "idle-timeout"), (Timeouts(half_close=1.5), "half-close-timeout"),
        ):  # fmt: skip
            self.relay(RelayRates(upload=100), timeouts=timeouts)
            self.client.deliver(bytes(1000))
            if reason == "half-close-timeout":
                self.client.finish()
            early = self.taken(self.server, 9.5)
            self.assert_near(early, 960, 2)
            self.assertEqual(self.results, [])
            self.assertEqual(early + self.taken(self.server, 4), 1000)
            self.take(self.client)
            self.assert_over(reason)


class RealTests(RelayCase):
    async def test_half_a_second(self) -> None:
        self.way = Way(rate=2_000_000)
        client, server = await self.start()
        began = reactor.seconds()
        server.send(bytes(1_000_000))
        server.close()
        await client.has(1_000_000)
        self.assertGreater(reactor.seconds() - began, 0.4)
        self.assertEqual((await self.over(client, server)).reason, "done")

    async def test_reset_while_nothing_may_be_sent(self) -> None:
        for wires, peer_wires in ((TcpWiring, None), (TlsWiring, TlsWiring)):
            self.way = Way(wires=wires, peer_wires=peer_wires, rate=10_000)
            client, server = await self.start()
            await server.tell(client, bytes(100_000), 1)
            await server.has_all(client.finish)
            client.reset()
            await self.over(client, server, reason="client-reset")


class OneDirectionTests(RelayCase):
    limited = 0

    async def test_client_that_is_gone(self) -> None:
        """On a UNIX socket, nothing more is reported once what is held for it may be sent."""
        self.way = Way(wires=LeanUnixWiring)
        client, server = await self.start()
        await server.tell(client, bytes(60_000), 100)
        client.close()
        await self.over(client, server, reason="client-reset")

    def make_relay(self, clock: Any, timeouts: Timeouts) -> Relay:
        relay = super().make_relay(clock, timeouts)
        (relay.client, relay.server)[self.limited].limit_rate(1000)
        return relay

    async def test_other_direction_at_full_speed(self) -> None:
        """What comes in large pieces the other way goes through pipes."""
        for self.limited in (0, 1):
            client, server = await self.start()
            source, target = (server, client) if self.limited else (client, server)
            await source.tell(target, bytes(3_000_000), 3_000_000)
            client.close()
            self.assertEqual((await self.over(client, server)).reason, "done")
