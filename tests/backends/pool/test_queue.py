import math
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import SPARE, Watched, servers
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.queue import ClientQueue, Waiter
from txmux.rules.model import Ejection


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = ClientQueue(2, 5.0, self.clock.callLater)
        self.room = 0
        self.events: list[str] = []

    def join(self, name: str) -> Waiter | None:
        def turn() -> bool:
            if not self.room:
                return False
            self.room -= 1
            self.events.append(name)
            return True

        return self.queue.add_client(turn, partial(self.events.append, f"{name} too late"))

    def serve(self, room: int) -> list[str]:
        self.room += room
        self.queue.serve()
        events, self.events = self.events, []
        return events

    def test_order(self) -> None:
        self.join("a")
        self.join("b")
        self.assertEqual(self.serve(0), [])
        self.assertEqual(self.serve(1), ["a"])
        self.join("c")
        self.assertEqual(self.serve(3), ["b", "c"])
        self.assertEqual((len(self.queue), self.clock.getDelayedCalls()), (0, []))
        self.assertTrue(self.join("a"))  # capacity
        self.assertTrue(self.join("b"))
        self.assertIsNone(self.join("c"))
        self.serve(1)
        self.assertTrue(self.join("d"))

    def test_one_that_finds_no_room(self) -> None:
        """One that can use no room does not hold up those behind it; nor do all of its group have to be asked."""
        asked: list[str] = []
        self.queue = ClientQueue(9, 5.0, self.clock.callLater)
        usable: set[object] = set()

        def join(name: str, group: object) -> None:
            def turn() -> bool:
                asked.append(name)
                return group in usable

            self.queue.add_client(turn, lambda: None, group)

        for name, group in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b"), ("c1", "c")):
            join(name, group)
        usable.update("bc")
        self.queue.serve()
        self.assertEqual((asked, len(self.queue)), (["a1", "b1", "b2", "c1"], 2))
        usable.add("a")
        self.queue.serve()
        self.assertEqual(asked[4:], ["a1", "a2"])
        self.assertEqual((len(self.queue), self.clock.getDelayedCalls()), (0, []))

    def test_room_that_nobody_tells_of(self) -> None:
        """Those who wait are asked when there may be room though nobody says so, and no timer outlives them."""
        in_seconds = [2.0]
        self.queue = ClientQueue(2, 5.0, self.clock.callLater, lambda: in_seconds[0])
        self.join("a")
        self.room = 1
        self.clock.advance(1.9)
        self.assertEqual(self.events, [])
        self.clock.advance(0.1)
        self.assertEqual((self.events, self.clock.getDelayedCalls()), (["a"], []))
        self.room, in_seconds[0] = 0, math.inf
        waiter = self.join("b")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        assert waiter
        in_seconds[0] = 1.0
        self.queue.serve()
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.queue.remove_client(waiter)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_those_that_leave(self) -> None:
        self.join("a")
        self.clock.advance(1)
        self.join("b")
        self.clock.advance(4)
        self.assertEqual(self.serve(1), ["a too late", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # One that leaves may do so twice.
        first = self.join("a")
        assert first
        self.join("b")
        self.queue.remove_client(first)
        self.queue.remove_client(first)
        self.assertEqual(self.serve(1), ["b"])

    def test_room_during_a_turn(self) -> None:
        def turn() -> bool:
            self.room += 1
            self.queue.serve()
            self.events.append("a")
            return True

        self.queue.add_client(turn, lambda: None)
        self.join("b")
        self.assertEqual(self.serve(0), ["a", "b"])

    def test_with_a_pool(self) -> None:
        watched = Watched(
            *servers("10.0.0.1:80"), max_connections=1, eject=Ejection(1), fallback=SPARE
        )
        pool = watched.pool
        pool.on_room = self.queue.serve
        found: list[object] = []

        def turn() -> bool:
            found.append(pool.pick())
            return found[-1] is not Unavailable.FULL

        first = watched.pick()
        self.queue.add_client(turn, lambda: None)
        self.queue.add_client(turn, lambda: None)
        pool.released(first)
        self.assertEqual(found, [first, Unavailable.FULL])
        pool.failed(first)
        self.assertEqual(found[2:], [Unavailable.NO_SERVER])
