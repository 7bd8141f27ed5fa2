"""Whatever two peers do and in whatever order, a relay carries every byte, and leaves nothing behind."""

from typing import TYPE_CHECKING, ClassVar

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.playing import Player
from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.schedules import Schedule, Step, schedules
from tests.net.relay.wiring import (
    LeanTcpWiring,
    LeanUnixWiring,
    Sides,
    TcpWiring,
    UnixWiring,
    Wiring,
    make_sides,
    sides_on_transports,
)
from tests.support.examples import scaled
from txmux.net.relay import kernel
from txmux.net.relay.interface import RelayResult
from txmux.net.relay.kernel import PipePool
from txmux.net.relay.peers import Peer
from txmux.net.sockets.poller import Poller, ReactorPoller, is_available

if TYPE_CHECKING:
    _Base = SynchronousTestCase
else:
    _Base = object

_MiB = 2**20


class ScheduleTests(_Base):
    """The tests; a subclass names the relay, and how its ends are made."""

    skip = None if is_available() else "these need Linux"
    reactor = "epoll"
    examples: ClassVar = 200
    moves: ClassVar = False

    def make_poller(self) -> Poller:
        return Poller.for_reactor(self.private.reactor)

    def make_sides(self, client: Peer, server: Peer) -> Sides:
        raise NotImplementedError

    def make_wiring(self) -> Wiring:
        return TcpWiring(self.private.reactor)

    def tidy_up(self) -> None: ...

    def setUp(self) -> None:
        self.private = PrivateReactor(self.reactor)
        self.addCleanup(self.private.close)
        self.poller = self.make_poller()
        self.wiring = self.make_wiring()
        self.player = Player(self.private, self.wiring, self.make_sides, self.tidy_up)
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


class TransportsTest(ScheduleTests, SynchronousTestCase):
    """The relay over transports that are not known as sockets."""

    def make_sides(self, client: Peer, server: Peer) -> Sides:
        return sides_on_transports(self.poller, client, server)


class TransportsUnixTest(TransportsTest):
    def make_wiring(self) -> Wiring:
        return UnixWiring(self.private.reactor, self)


class TransportsPollTest(TransportsTest):
    reactor = "poll"
    examples = 15


class TransportsSelectTest(TransportsPollTest):
    """The same, run by the reactor of every system."""

    reactor = "select"


class TransportsAsyncioTest(TransportsPollTest):
    reactor = "asyncio"


class KernelTest(ScheduleTests, SynchronousTestCase):
    """The kernel relay, which others take over from time to time."""

    moves = True

    def make_sides(self, client: Peer, server: Peer) -> Sides:
        return make_sides(self.poller, client, server)

    def tidy_up(self) -> None:
        self.assertEqual(kernel._pipes._given, 0)
        kernel._pipes.clear()


class KernelUnixTest(KernelTest):
    def make_wiring(self) -> Wiring:
        return UnixWiring(self.private.reactor, self)


class KernelLeanTest(KernelTest):
    """The kernel relay between sockets that the reactor of workers serves beside its own."""

    reactor = "workers"

    def make_wiring(self) -> Wiring:
        return LeanTcpWiring(self.poller)


class KernelLeanUnixTest(KernelTest):
    """The kernel relay between UNIX sockets that a poller serves."""

    def make_wiring(self) -> Wiring:
        return LeanUnixWiring(self.poller, self)


class KernelWithoutPipesTest(KernelTest):
    """The kernel relay when all pipes are in use."""

    examples = 50

    def setUp(self) -> None:
        self.patch(kernel, "_pipes", PipePool(in_use=0))
        super().setUp()


class KernelPollTest(KernelTest):
    reactor = "poll"
    examples = 15


class KernelSelectTest(KernelPollTest):
    """The kernel relay, run by the reactor of every system."""

    reactor = "select"


class KernelAsyncioTest(KernelPollTest):
    reactor = "asyncio"


class WatchedTest(KernelLeanTest):
    """Between sockets that the reactor watches."""

    reactor = "epoll"
    examples = 50

    def make_poller(self) -> Poller:
        return ReactorPoller(self.private.reactor)


class WatchedUnixTest(WatchedTest):
    def make_wiring(self) -> Wiring:
        return LeanUnixWiring(self.poller, self)


class WatchedByWorkersTest(WatchedTest):
    reactor = "workers"


class WatchedPollTest(WatchedTest):
    reactor = "poll"


class WatchedSelectTest(WatchedTest):
    reactor = "select"


class WatchedAsyncioTest(WatchedTest):
    reactor = "asyncio"
