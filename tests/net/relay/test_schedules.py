"""Whatever two peers do and in whatever order, a relay carries every byte, and leaves nothing behind."""

import functools

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.playing import Player
from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.schedules import Schedule, Step, schedules
from tests.net.relay.wiring import (
    LeanTcpWiring,
    LeanUnixWiring,
    TcpWiring,
    UnixWiring,
    Wires,
    make_sides,
    sides_on_transports,
)
from tests.support.examples import scaled
from txmux.net.relay import kernel
from txmux.net.relay.interface import RelayResult
from txmux.net.relay.kernel import PipePool
from txmux.net.sockets.poller import Poller, ReactorPoller, is_available

_MiB = 2**20


class ScheduleTest(SynchronousTestCase):
    """A relay, which others take over from time to time; a subclass names how its ends are made."""

    skip = None if is_available() else "these need Linux"
    reactor = "epoll"
    wires: Wires = TcpWiring
    is_watched = on_transports = False
    examples = 200
    moves = True

    def tidy_up(self) -> None:
        self.assertEqual(kernel.pipes.given, 0)
        kernel.pipes.clear()

    def setUp(self) -> None:
        self.private = PrivateReactor(self.reactor)
        self.addCleanup(self.private.close)
        reactor = self.private.reactor
        poller = ReactorPoller(reactor) if self.is_watched else Poller.for_reactor(reactor)
        self.wiring = self.wires(poller, self)
        sides = functools.partial(sides_on_transports if self.on_transports else make_sides, poller)
        self.player = Player(self.private, self.wiring, sides, self.tidy_up)
        self.addCleanup(self.player.close)
        self.in_good_order(Schedule((Step("client", "write", _MiB),)))

    def test_good_order(self) -> None:
        check = given(schedules(endings=False, moves=self.moves))(self.in_good_order)
        settings(max_examples=scaled(self.examples), deadline=None)(check)()

    def test_breaking_off(self) -> None:
        """Peers that break off leave a whole beginning of what they had sent."""
        check = given(schedules(endings=True, moves=self.moves))(self.in_any_order)
        settings(max_examples=scaled(self.examples), deadline=None)(check)()

    def test_reset_beside_an_end(self) -> None:
        """A reset that is heard when there is room again for what came before it is not a clean end."""
        steps = (Step("server", "write", 2**18), Step("server", "reset"), Step("client", "finish"))
        self.in_any_order(Schedule(steps, buffers=2**16))

    def in_good_order(self, schedule: Schedule) -> None:
        result = self.player.play(schedule)
        client, server = self.player.peers["client"], self.player.peers["server"]
        self.assertEqual(
            (server.received, client.received, client.broken, server.broken),
            (client.to_send, server.to_send, False, False),
        )
        bytes_in = client.to_send - schedule.pending
        self.assertEqual(result, RelayResult("done", bytes_in, server.to_send))

    def in_any_order(self, schedule: Schedule) -> None:
        result = self.player.play(schedule)
        client, server = self.player.peers["client"], self.player.peers["server"]
        if not (client.gone or server.gone or self.player.drained):
            self.assertEqual(
                (server.received, client.received), (client.to_send, server.to_send), result
            )
            self.assertEqual(result.reason, "done")
            return
        ways = (
            (client, server, schedule.pending + result.bytes_in),
            (server, client, result.bytes_out),
        )
        for sender, reader, carried in ways:
            self.assertLessEqual(reader.received, carried)
            self.assertLessEqual(carried, sender.sent)
            if not (reader.gone or self.player.drained):
                # What was read of one who broke off is passed on before the end is.
                self.assertEqual(reader.received, carried)
        self.assert_reason(result)

    def assert_reason(self, result: RelayResult) -> None:
        peers = self.player.peers
        gone = {who for who, peer in peers.items() if peer.gone}
        # The end of a UNIX socket always looks as if all had been said.
        said_all = all(peers[who].said_all or not self.wiring.breaks_off for who in gone)
        possible = {f"{who}-reset" for who in gone} | ({"done"} if said_all else set())
        if result.reset == "late":
            self.assertTrue(len(gone) == 2 or any(peer.said_all for peer in peers.values()))
        if self.player.drained:
            self.assertIn(result.reason, possible | {"drained"})
            return
        self.assertIn(result.reason, possible)
        survivors = set(peers) - gone
        if survivors and not said_all:
            self.assertTrue(peers[survivors.pop()].broken, "a reset is passed on as a reset")


class TransportsTest(ScheduleTest):
    """Over transports that are not known as sockets."""

    on_transports, moves = True, False


class TransportsUnixTest(ScheduleTest):
    on_transports, moves, wires = True, False, UnixWiring


class TransportsPollTest(ScheduleTest):
    on_transports, moves, reactor, examples = True, False, "poll", 15


class TransportsSelectTest(ScheduleTest):
    on_transports, moves, reactor, examples = True, False, "select", 15


class TransportsAsyncioTest(ScheduleTest):
    on_transports, moves, reactor, examples = True, False, "asyncio", 15


class KernelUnixTest(ScheduleTest):
    wires = UnixWiring


class KernelLeanTest(ScheduleTest):
    """Between sockets that the reactor of workers serves beside its own."""

    wires, reactor = LeanTcpWiring, "workers"


class KernelLeanUnixTest(ScheduleTest):
    wires = LeanUnixWiring


class KernelWithoutPipesTest(ScheduleTest):
    """When all pipes are in use."""

    examples = 50

    def setUp(self) -> None:
        self.patch(kernel, "pipes", PipePool(in_use=0))
        super().setUp()


class KernelPollTest(ScheduleTest):
    reactor, examples = "poll", 15


class KernelSelectTest(ScheduleTest):
    """Run by the reactor of every system."""

    reactor, examples = "select", 15


class KernelAsyncioTest(ScheduleTest):
    reactor, examples = "asyncio", 15


class WatchedTest(ScheduleTest):
    """Between sockets that the reactor watches."""

    wires, is_watched, examples = LeanTcpWiring, True, 50


class WatchedUnixTest(ScheduleTest):
    wires, is_watched, examples = LeanUnixWiring, True, 50


class WatchedByWorkersTest(ScheduleTest):
    wires, is_watched, examples, reactor = LeanTcpWiring, True, 50, "workers"


class WatchedPollTest(ScheduleTest):
    wires, is_watched, examples, reactor = LeanTcpWiring, True, 50, "poll"


class WatchedSelectTest(ScheduleTest):
    wires, is_watched, examples, reactor = LeanTcpWiring, True, 50, "select"


class WatchedAsyncioTest(ScheduleTest):
    wires, is_watched, examples, reactor = LeanTcpWiring, True, 50, "asyncio"
