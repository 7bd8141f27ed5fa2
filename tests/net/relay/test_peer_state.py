import contextlib
import socket
import struct
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.relay_case import RelayCase, Way
from tests.support.kit import for_each, pair, reactor
from txmux.client.socket_options import NO_KEEPALIVE, keepalive_options
from txmux.net.relay import kernel, peer_state
from txmux.net.relay.interface import Timeouts
from txmux.net.relay.peer_state import ANSWERED, UnansweredBytes, queued_in, unanswered_by
from txmux.net.sockets.plainsocket import open_multipath, set_options
from txmux.net.sockets.poller import is_available
from txmux.net.sockets.transport import socket_below
from txmux.rules.model import Keepalive

_KEEPALIVE = Keepalive(idle=60, interval=15, count=4)
_SKIP = None if is_available() else "these need Linux"


def _since_heard(connected: socket.socket) -> float:
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    since_data, since_acknowledgement = struct.unpack_from("=II", info, 52)
    return float(min(since_data, since_acknowledgement)) / 1000


class UnansweredTest(SynchronousTestCase):
    def test_when_it_is_over(self) -> None:
        """One question alone may just be on its way, and nothing is over without keepalive."""
        one = Keepalive(idle=1, interval=1, count=1)
        for silence, keepalive, is_over in (
            (ANSWERED, _KEEPALIVE, False), (UnansweredBytes(119.9, 9), _KEEPALIVE, False),
            (UnansweredBytes(120, 3), _KEEPALIVE, False), (UnansweredBytes(120, 4), _KEEPALIVE, True),
            (UnansweredBytes(9999, 0), _KEEPALIVE, False),
            (UnansweredBytes(100, 1), one, False), (UnansweredBytes(2, 2), one, True),
        ):  # fmt: skip
            self.assertEqual(silence.is_lost(keepalive), is_over, silence)
        self.assertEqual(peer_state.lost_after(None), float("inf"))

    def test_pause(self) -> None:
        for silence, pause in (
            (ANSWERED, 120), (UnansweredBytes(0.1, 1), 120), (UnansweredBytes(16, 3), 105),
            (UnansweredBytes(119.9, 3), 15), (UnansweredBytes(500, 1), 15),
        ):  # fmt: skip
            self.assertEqual(silence.pause(_KEEPALIVE), pause, silence)


class _Transport:
    def __init__(self, connected: object) -> None:
        self.getHandle = lambda: connected


class SocketTest(SynchronousTestCase):
    skip = _SKIP

    def setUp(self) -> None:
        self.other, self.one = pair(self, is_tcp=True)
        self.plain, _ = pair(self)

    def test_keepalive(self) -> None:
        one, plain = _Transport(self.one), _Transport(self.plain)
        set_options(self.one, NO_KEEPALIVE)
        self.assertIsNone(peer_state.keepalive_of(plain, one, _Transport(None)))
        set_options(self.one, keepalive_options(7, 8, 9))
        found = peer_state.keepalive_of(plain, one)
        assert found is not None
        self.assertEqual((found.idle, found.interval, found.count), (7, 8, 9))
        self.one.close()
        self.assertIsNone(peer_state.keepalive_of(plain, one))

    def test_nothing_to_answer(self) -> None:
        self.one.send(b"hello")
        self.other.recv(5)
        for connected in (self.one, self.other, self.plain, None):
            self.assertEqual(unanswered_by(connected), ANSWERED)
        self.one.close()
        self.assertEqual(unanswered_by(self.one), ANSWERED)


class MultipathTest(SynchronousTestCase):
    skip = _SKIP

    def test_nothing_sent_after_a_fallback(self) -> None:
        """A reset that waits until the queue is empty would wait for ever."""
        listening = socket.create_server(("127.0.0.1", 0))
        one = open_multipath(socket.AF_INET, socket.SOCK_STREAM)
        for its in (listening, one):
            self.addCleanup(its.close)
        one.connect(listening.getsockname())
        self.assertEqual(queued_in(one), 0)
        one.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one.send(bytes(100_000))
        self.assertGreater(queued_in(one), 1)


@for_each("way", (Way(), Way(on_transports=True)))
class LostPeerTest(RelayCase):
    """What a relay makes of them; the system's answer is the test's."""

    skip = _SKIP

    keepalive: Keepalive | None = _KEEPALIVE

    async def relayed(self, timeouts: Timeouts = Timeouts(idle=1000)) -> None:  # noqa: B008
        self.clock = Clock()
        self.unanswered: dict[object, UnansweredBytes] = {}
        self.looks = 0

        def tell(connected: object) -> UnansweredBytes:
            self.looks += 1
            return self.unanswered.get(connected, ANSWERED)

        self.patch(kernel, "unanswered_by", tell)
        self.client, self.server = await self.start(timeouts=timeouts, clock=self.clock)

    def set_unanswered(self, end: int, *silence: Any) -> None:
        self.unanswered[socket_below(self.ends[end].transport)] = UnansweredBytes(*silence)

    async def test_client_gone(self) -> None:
        """The silent side is broken off, as keepalive does it, and the other one with it."""
        await self.relayed()
        await self.client.tell(self.server, b"before")
        self.set_unanswered(0, 50, 7)
        self.clock.advance(120)
        self.assertEqual(self.looks, 2)
        self.set_unanswered(0, 119.9, 8)
        self.clock.advance(75)
        self.assertEqual((self.looks, self.results), (4, []))
        self.set_unanswered(0, 135, 9)
        self.clock.advance(15)
        result = await self.over(self.client, self.server)
        self.assertEqual((result.reason, result.bytes_in), ("client-reset", 6))
        self.assert_broken_off(self.client, self.server)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_server_gone(self) -> None:
        """It is seen in time, or when somebody asks."""
        for is_asked in (False, True):
            await self.relayed()
            self.set_unanswered(1, 120, 4)
            if is_asked:
                self.relay.check_peers()
                self.assertTrue(self.relay.ending)
            else:
                self.clock.advance(120)
            self.assertEqual((await self.over(self.client)).reason, "server-reset")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_one_look_a_period(self) -> None:
        await self.relayed()
        self.clock.pump([1] * 999)
        self.assertEqual((self.looks, self.results), (16, []))
        self.clock.advance(1)
        self.assertEqual((await self.over(self.client, self.server)).reason, "idle-timeout")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_gone_while_it_is_closed(self) -> None:
        await self.relayed(Timeouts(idle=1000, half_close=500))
        await self.server.has_all(self.client.finish)
        self.set_unanswered(0, 200, 9)
        self.clock.advance(120)
        while not self.results:  # the end that was passed on is acknowledged late
            await self.turn()
            self.clock.advance(0.1)
        self.assertEqual((await self.over(self.server)).reason, "client-reset")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_gone_while_both_are_closed(self) -> None:
        """The other one, which takes nothing, has its time and no more."""
        await self.relayed(Timeouts(idle=1000, half_close=500))
        for peer in (self.client, self.server):
            peer.transport.pauseProducing()
            peer.send(bytes(20_000_000))
        await self.standstill(self.client, self.server)
        connected = socket_below(self.ends[0].transport)
        while not self.relay.ending:
            self.clock.advance(1000)
            await self.turn(5)
        self.unanswered[connected] = UnansweredBytes(135, 9)
        for _ in range(9):
            self.clock.advance(135)
            await self.turn(5)
        self.assertEqual([one.reason for one in self.results], ["idle-timeout"])

    async def test_peer_that_does_not_read(self) -> None:
        """Who is there and does not read stays, though it is asked ever more rarely and has not been heard of for long."""
        pause: Any = 0.2  # seconds, in which the system asks first; it doubles them each time
        self.keepalive = keepalive = Keepalive(idle=pause, interval=pause, count=2)
        self.clock = Clock()
        timeouts = Timeouts(idle=1e6)
        client, server = await self.start(timeouts=timeouts, clock=self.clock, small_buffers=True)
        await self.stall(client, server)
        connected = socket_below(self.ends[0].transport)
        while _since_heard(connected) < peer_state.lost_after(keepalive):
            await deferLater(reactor, 0.05)
            self.clock.advance(0.05)
        self.clock.pump([1] * 10)
        await self.turn(10)
        self.assertEqual((self.results, unanswered_by(connected).tries // 2), ([], 0))

    async def test_adopted_relay_reads_keepalive_of_sockets(self) -> None:
        self.keepalive = None
        self.way = Way()  # as where a relay moves
        await self.relayed()
        for end in self.ends:
            set_options(end.transport.getHandle(), keepalive_options(1, 2, 3))
        state = self.relay.suspend()
        assert state is not None
        self.relay = self.make_relay(self.clock, Timeouts(idle=1000))
        self.relay.adopt(state)
        self.clock.pump([0.5] * 28)
        self.assertEqual(self.looks, 4)
        self.set_unanswered(1, 8, 4)
        self.clock.advance(7)
        self.assertEqual((await self.over(self.client)).reason, "server-reset")
