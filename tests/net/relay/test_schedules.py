"""Whatever two peers do and in whatever order, a relay carries every byte, and leaves nothing behind."""

import functools
from collections.abc import Callable
from contextlib import closing

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay import wiring
from tests.net.relay.playing import Player, Schedule, Step, schedules
from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.relay_case import Way
from tests.net.relay.wiring import LeanTcpWiring, LeanUnixWiring, TcpWiring, UnixWiring
from tests.support.examples import scaled
from tests.support.kit import change_constants, for_each
from txmux.net.relay import kernel
from txmux.net.relay.interface import RelayResult
from txmux.net.relay.kernel import PipePool
from txmux.net.sockets.poller import Poller, ReactorPoller, is_available

_MiB = 2**20
_OTHERS = ("poll", "select", "asyncio")


def clear_pipes() -> None:
    assert kernel.pipes.given == 0
    kernel.pipes.clear()


class Schedules:
    """Relays, which others take over from time to time, on a reactor of the test's own."""

    def __init__(
        self,
        test: SynchronousTestCase,
        reactor: str,
        way: Way,
        examples: int,
        tidy_up: Callable[[], None] = clear_pipes,
        **options: bool,
    ) -> None:
        self._test, self._examples, self._moves = test, examples, not way.on_transports
        self.private = test.enterContext(closing(PrivateReactor(reactor)))
        make = ReactorPoller if way.is_watched else Poller.for_reactor
        poller = make(self.private.reactor)
        self.wiring = way.wires(poller, test)
        sides = functools.partial(
            wiring.sides_on_transports if way.on_transports else wiring.make_sides, poller
        )
        player = Player(self.private, self.wiring, sides, tidy_up, **options)
        self.player = test.enterContext(closing(player))

    def play_all(self) -> None:
        """Play many, of which those that break off leave a whole beginning of what they had sent."""
        self.in_good_order(Schedule((Step("client", "write", _MiB),)))
        for endings, play in ((False, self.in_good_order), (True, self.in_any_order)):
            check = given(schedules(endings=endings, moves=self._moves))(play)
            settings(max_examples=scaled(self._examples), deadline=None)(check)()
        # A reset that is heard when there is room again for what came before it is not a clean end.
        steps = (Step("server", "write", 2**18), Step("server", "reset"), Step("client", "finish"))
        self.in_any_order(Schedule(steps, buffers=2**16))

    def in_good_order(self, schedule: Schedule) -> None:
        result = self.player.play(schedule)
        client, server = self.player.peers["client"], self.player.peers["server"]
        self._test.assertEqual(
            (server.received, client.received, client.broken, server.broken),
            (client.to_send, server.to_send, False, False),
        )
        bytes_in = client.to_send - schedule.pending
        self._test.assertEqual(result, RelayResult("done", bytes_in, server.to_send))

    def in_any_order(self, schedule: Schedule) -> None:
        result = self.player.play(schedule)
        client, server = self.player.peers["client"], self.player.peers["server"]
        if not (client.gone or server.gone or self.player.drained):
            self._test.assertEqual(
                (server.received, client.received), (client.to_send, server.to_send), result
            )
            self._test.assertEqual(result.reason, "done")
            return
        ways = (
            (client, server, schedule.pending + result.bytes_in),
            (server, client, result.bytes_out),
        )
        for sender, reader, carried in ways:
            self._test.assertLessEqual(reader.received, carried)
            self._test.assertLessEqual(carried, sender.sent)
            if not (reader.gone or self.player.drained):
                # What was read of one who broke off is passed on before the end is.
                self._test.assertEqual(reader.received, carried)
        self.assert_reason(result)

    def assert_reason(self, result: RelayResult) -> None:
        peers = self.player.peers
        gone = {who for who, peer in peers.items() if peer.gone}
        # The end of a UNIX socket always looks as if all had been said.
        said_all = all(peers[who].said_all or not self.wiring.breaks_off for who in gone)
        possible = {f"{who}-reset" for who in gone} | ({"done"} if said_all else set())
        if result.reset == "late":
            self._test.assertTrue(len(gone) == 2 or any(peer.said_all for peer in peers.values()))
        if self.player.drained:
            self._test.assertIn(result.reason, possible | {"drained"})
            return
        self._test.assertIn(result.reason, possible)
        survivors = set(peers) - gone
        if survivors and not said_all:
            self._test.assertTrue(peers[survivors.pop()].broken, "a reset is passed on as a reset")


@for_each(
    "reactor_and_way",
    (
        *(("epoll", Way(wires), 200) for wires in (TcpWiring, UnixWiring, LeanUnixWiring)),
        ("workers", Way(LeanTcpWiring), 200),
        *((reactor, Way(), 15) for reactor in _OTHERS),
        *(("epoll", Way(wires, on_transports=True), 200) for wires in (TcpWiring, UnixWiring)),
        *((reactor, Way(on_transports=True), 15) for reactor in _OTHERS),
        ("epoll", Way(LeanUnixWiring, is_watched=True), 50),
        *(
            (reactor, Way(LeanTcpWiring, is_watched=True), 50)
            for reactor in ("epoll", "workers", *_OTHERS)
        ),
    ),
)
class ScheduleTest(SynchronousTestCase):
    skip = None if is_available() else "these need Linux"
    reactor_and_way: tuple[str, Way, int]

    def test_schedules(self) -> None:
        Schedules(self, *self.reactor_and_way).play_all()


class WithoutPipesTest(SynchronousTestCase):
    skip = ScheduleTest.skip

    def test_all_pipes_in_use(self) -> None:
        change_constants(self, kernel, pipes=PipePool(in_use=0))
        Schedules(self, "epoll", Way(), 50).play_all()
