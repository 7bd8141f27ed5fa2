"""A mark saves wake-ups, and nobody's bytes wait below it."""

import socket
from typing import Any
from unittest.mock import Mock

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.playing import Schedule, Step
from tests.net.relay.relay_case import RelayCase, Way
from tests.net.relay.test_schedules import Schedules, clear_pipes
from tests.net.relay.wiring import LeanTcpWiring
from tests.support.examples import scaled
from tests.support.kit import change_constants, for_each, pair, reactor
from txmux.net.relay import kernel, marks
from txmux.net.relay.marks import LEVEL, LONGEST_RUN, PAUSE, RUN, Mark, MarkGuard
from txmux.net.sockets.poller import is_available

_SKIP = None if is_available() else "these need Linux"
_SMALL_LEVEL, _SMALL_RUN = 2**15, 2**17
_BUFFERS = 2**17


def _level(connected: socket.socket) -> int:
    return connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def _room(connected: socket.socket) -> int:
    return connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


class MarkTest(SynchronousTestCase):
    skip = _SKIP

    def setUp(self) -> None:
        self.clock = Clock()
        self.source, _ = pair(self, is_tcp=True)
        change_constants(self, marks, _LEAST=1)  # the buffers of a new connection are small
        self.guard = MarkGuard(self.clock)
        self.mark = Mark(self.source, self.guard)

    def set(self) -> None:
        self.mark.bytes_came(LONGEST_RUN)
        self.assertTrue(self.mark.is_set)

    def assert_cleared(self) -> None:
        self.assertFalse(self.mark.is_set)
        self.assertEqual((_level(self.source), self.clock.getDelayedCalls()), (1, []))

    def test_run_sets_mark_and_leaves_buffer(self) -> None:
        room = _room(self.source)
        self.mark.bytes_came(RUN - 1)
        self.assert_cleared()
        self.mark.bytes_came(1)
        self.assertEqual((_level(self.source), _room(self.source)), (min(LEVEL, room // 4), room))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_small_buffer(self) -> None:
        """There is no mark with it, nor on a UNIX socket."""
        end, _ = pair(self)
        for source, least in ((end, 1), (self.source, _room(self.source))):
            change_constants(self, marks, _LEAST=least)
            mark = Mark(source, MarkGuard(self.clock))
            mark.bytes_came(LONGEST_RUN)
            self.assertFalse(mark.is_set)
            self.assertEqual((_level(source), self.clock.getDelayedCalls()), (1, []))

    def pause(self) -> None:
        self.clock.pump([PAUSE, PAUSE])
        self.assert_cleared()

    def test_slow(self) -> None:
        """Who pauses soon below a mark has to send twice as much for the next, up to a limit."""
        needed = RUN
        while needed < 2 * LONGEST_RUN:
            self.mark.bytes_came(min(needed, LONGEST_RUN) - 1)
            self.assertFalse(self.mark.is_set)
            self.mark.bytes_came(1)
            self.assertTrue(self.mark.is_set)
            self.mark.bytes_came(2 * LEVEL - 1)
            self.pause()
            needed *= 2

    def test_pause_after_much_has_come_by_a_mark(self) -> None:
        """A fast sender has its mark again at once, however often it has been slow before."""
        for _ in range(3):
            self.set()
            self.pause()
        self.set()
        self.mark.bytes_came(2 * LEVEL)
        self.pause()
        self.mark.bytes_came(LEVEL)
        self.assertTrue(self.mark.is_set)
        self.mark.sender_answered()
        self.mark.bytes_came(RUN)
        self.assert_cleared()

    def test_pause_removes_mark_after_two_looks(self) -> None:
        self.set()
        for _ in range(50):
            self.clock.advance(PAUSE)
            self.mark.bytes_came(1)
        self.clock.advance(PAUSE)
        self.assertTrue(self.mark.is_set)
        self.clock.advance(PAUSE)
        self.assert_cleared()

    def test_shared_timer(self) -> None:
        """It goes with the last mark, also of a closed socket."""
        self.set()
        other = Mark(self.source, self.guard)
        other.bytes_came(RUN)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.mark.socket_closed()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        other.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.mark = Mark(self.source, self.guard)
        self.set()
        self.source.close()
        self.mark.socket_closed()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.mark.clear()

    def test_no_memory_for_timer_removes_marks(self) -> None:
        self.set()
        self.mark.bytes_came(1)
        self.patch(self.clock, "callLater", Mock(side_effect=MemoryError))
        self.clock.advance(PAUSE)
        self.assert_cleared()
        self.assertEqual(self.guard.marks, {})

    def test_answered(self) -> None:
        """Who is answered while there is a mark loses it, and has to send twice as much for the next."""
        for needed in (*(RUN << power for power in range(8)), LONGEST_RUN):
            self.mark.bytes_came(needed - 1)
            self.assertFalse(self.mark.is_set)
            self.mark.bytes_came(1)
            self.assertTrue(self.mark.is_set)
            self.mark.sender_answered()
            self.assert_cleared()

    def test_conversation(self) -> None:
        """However much comes, there is no mark while each message is answered before the run is long enough."""
        for _ in range(100):
            self.mark.bytes_came(RUN - 1)
            self.mark.sender_answered()
        self.assert_cleared()
        self.mark.bytes_came(RUN)
        self.assertTrue(self.mark.is_set)
        self.clock.pump([PAUSE, PAUSE])  # an answer after a pause
        self.mark.sender_answered()
        self.mark.bytes_came(RUN)
        self.assert_cleared()


class MarkedRelayTest(RelayCase):
    skip = _SKIP
    way = Way(LeanTcpWiring)
    ends: list[Any]

    async def marked(self) -> tuple[Any, Any, socket.socket]:
        change_constants(self, marks, RUN=_SMALL_RUN, LEVEL=_SMALL_LEVEL, _LEAST=1, PAUSE=1000.0)
        client, server = await self.start()
        source = self.ends[0].transport.getHandle()
        while _level(source) == 1:
            sent = len(server.received)
            await client.tell(server, b"x" * 2**20, sent + 2**20 - _SMALL_LEVEL)
        return client, server, source

    async def test_end_comes_at_once(self) -> None:
        client, server, source = await self.marked()
        client.send(b"last")
        await server.has_all(client.finish)
        self.assertTrue(server.received.endswith(b"xlast"))
        self.assertEqual(_level(source), 1, "an end is few bytes")
        await server.tell(client, b"and")

    async def test_reset_comes_at_once(self) -> None:
        client, server, _ = await self.marked()
        client.reset()
        await self.over(server, reason="client-reset")
        self.assertEqual(reactor.getDelayedCalls()[1:], [], "but for the time-out of the test")

    async def test_answer_removes_mark(self) -> None:
        client, server, source = await self.marked()
        client.send(b"question")
        await server.tell(client, b"answer")
        self.assertEqual(_level(source), 1)
        while not server.received.endswith(b"question"):
            await self.turn()

    async def test_suspended_relay_leaves_no_mark(self) -> None:
        client, server, source = await self.marked()
        client.send(b"more")
        state = self.relay.suspend()
        assert state is not None
        self.assertEqual(_level(source), 1)
        self.relay.resume(state)
        while not server.received.endswith(b"more"):
            await self.turn()

    async def test_few(self) -> None:
        """The mark goes when few bytes come again and again, as where the window is small."""
        client, server, source = await self.marked()
        mark = self.ends[0].receiver.mark
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)  # as if it were told early
        await self.standstill(client, server)
        times = 0
        while mark.is_set:
            await client.tell(server, b"few", len(server.received) + 3)
            times += 1
        self.assertIn(times, range(2, kernel.MUCH + 1))


def _make_small(test: SynchronousTestCase) -> list[Mark]:
    change_constants(
        test, marks, LEVEL=_SMALL_LEVEL, RUN=_SMALL_RUN, LONGEST_RUN=2 * _SMALL_RUN, _LEAST=1
    )
    was_set: list[Mark] = []

    class Noting(MarkGuard):
        def add_mark(self, mark: Mark) -> None:
            super().add_mark(mark)
            was_set.append(mark)

    test.patch(kernel, "MarkGuard", Noting)
    return was_set


def _pieces() -> SearchStrategy[int]:
    about = st.sampled_from([1, _SMALL_LEVEL, 2 * _SMALL_LEVEL, _SMALL_RUN, _SMALL_RUN * 2, 2**19])
    return st.builds(lambda size, more: max(1, size + more), about, st.integers(-3, 3))


class PauseTest(SynchronousTestCase):
    """Senders that stop anywhere."""

    skip = _SKIP

    def setUp(self) -> None:
        self.was_set = _make_small(self)
        way = Way(LeanTcpWiring)
        self.player = Schedules(self, "workers", way, 0, _clear_pipes, pauses=True).player

    def play(self, steps: list[Step]) -> None:
        self.assertEqual(self.player.play(Schedule(tuple(steps), buffers=_BUFFERS)).reason, "done")

    def test_about_the_mark(self) -> None:
        for more in (*range(-20, 21), 1 - _SMALL_LEVEL, _SMALL_LEVEL // 2):
            sizes = (2**19, _SMALL_LEVEL + more, 2**19 + more)
            self.play([Step("client", "write", size) for size in sizes])
        self.assertGreater(len(self.was_set), 40, "there were marks")

    def test_anywhere(self) -> None:
        step = st.builds(Step, st.sampled_from(["client", "server"]), st.just("write"), _pieces())
        check = given(st.lists(step, min_size=1, max_size=8))(self.play)
        # Chance alone may give too few that are large.
        for more in range(-10, 11):
            large = Step("server" if more % 2 else "client", "write", 2**19 + more)
            check = example([large])(check)
        settings(max_examples=scaled(60), deadline=None)(check)()
        self.assertGreater(len(self.was_set), 10, "there were marks")


def _clear_pipes() -> None:
    kernel.pipes.clear()
    kernel.large_pipes.clear()


@for_each("ends", (("epoll", Way()), ("workers", Way(LeanTcpWiring))))
class MarkedScheduleTest(SynchronousTestCase):
    """Whatever peers do, where marks are soon set, whether the reactor serves the sockets or not."""

    skip = _SKIP
    ends: tuple[str, Way]

    def test_schedules(self) -> None:
        was_set = _make_small(self)

        def tidy_up() -> None:
            self.assertEqual(MarkGuard.for_reactor(its.private.reactor).marks, {})
            self.assertEqual(kernel.large_pipes.given, 0)
            clear_pipes()
            kernel.large_pipes.clear()

        its = Schedules(self, *self.ends, 100, tidy_up)
        its.play_all()
        self.assertNotEqual(was_set, [])
