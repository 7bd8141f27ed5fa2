import gc
import math
from collections import Counter
from functools import partial
from typing import Any
from weakref import ref

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import Watched
from tests.support.changes import change_constants
from txmux.access.admission import Tally
from txmux.backends.pool import hold
from txmux.backends.pool.hold import HeldClient, WaitingClients
from txmux.rules.model import Check
from txmux.telemetry.counting.counter_groups import held
from txmux.telemetry.counting.process_counters import ProcessCounters

_ACTIONS = "join", "leave", "up", "refuse", "hold", "release", "wait", "mark"


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.is_up = False
        self.refuses = False
        self.went: list[tuple[str, float]] = []
        self.waiting: list[bool] = []
        self.held = WaitingClients([], self.waiting.append, now=self.clock.seconds)
        self.held.clock, self.held.counts = self.clock, ProcessCounters().backend("")

    def join(
        self, name: str, seconds: float = 60.0, came_at: float | None = None, **settings: Any
    ) -> HeldClient:
        def turn() -> bool:
            if not self.is_up:
                return False
            if self.refuses:
                self.held.add(client, is_short=True)
            else:
                self.held.remove(client, is_connected=True)
                self.went.append((name, self.clock.seconds()))
            return True

        def refuse(why: str) -> None:
            self.went.append((f"{name} {'too late' if why == 'no-server' else why}", 0.0))

        at = self.clock.seconds() if came_at is None else came_at
        client = HeldClient(at, seconds, turn, refuse, **settings)
        self.held.add(client, is_short=True)
        return client

    def assert_nobody_waits(self) -> None:
        left = len(self.held), self.held.blocks, self.clock.getDelayedCalls()
        self.assertEqual((*left, held(self.held.counts.cells)), (0, False, [], 0))

    def pass_time(self, seconds: float) -> list[str]:
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)
        return [name for name, _ in self.went]

    def test_in_the_order_in_which_they_came(self) -> None:
        for number in (3, 1, 2):
            self.join(str(number), came_at=float(number))
        self.assertEqual(self.pass_time(1), [])
        self.is_up = True
        self.assertEqual(self.pass_time(1), ["1", "2", "3"])
        self.assert_nobody_waits()
        self.assertEqual(self.waiting, [True, False])

    def test_the_order_stays_where_many_leave(self) -> None:
        """What is left of a heap in its order is none."""
        change_constants(self, hold, _SPARE=0)
        clients = {at: self.join(str(at), came_at=float(at)) for at in (1, 5, 2, 6, 7, 3, 4)}
        for at in (1, 2, 7, 4):
            self.held.remove(clients[at])
        self.is_up = True
        self.assertEqual(self.pass_time(1), ["3", "5", "6"])

    def test_those_that_may_have_left_come_last(self) -> None:
        self.join("a", may_have_left=True)
        b, c = map(self.join, "bc")
        b.check_client = partial(self.held.mark_possibly_gone, b)
        c.check_client = partial(self.held.remove, c)
        self.join("d")
        self.is_up = True
        self.assertEqual(self.pass_time(1), ["d", "a", "b"])
        self.assertEqual(len(self.held), 0)

    def test_limit_makes_room_for_sources_that_have_less(self) -> None:
        # Each has its source, a small letter if it may have left.
        for there, comes, leaves in (
            ("AAB", "C", "A2"), ("AAB", "B", ""), ("AAAB", "B", "A3"), ("AAA", "A", ""),
            ("AAa", "A", ""), ("aaA", "A", "a2"), ("aaA", "B", "a2"), ("aa", "A", "a2"),
            ("AAAb", "C", "b4"), ("AAAb", "B", "b4"), ("AAAb", "c", ""), ("aaab", "c", "a3"),
            ("aab", "b", ""), ("bcdeAA", "A", "b1"), ("bcdAAA", "A", ""), ("ABC", "D", ""),
            ("", "A", ""),
        ):  # fmt: skip
            self.setUp()
            for number, source in enumerate(there + comes, start=1):

                def go(why: object, name: str = f"{source}{number}") -> None:
                    self.went.append((f"{name} {why}", 0.0))

                own, has_left = ord(source.upper()), source.islower()
                client = HeldClient(
                    float(number), 60.0, lambda: True, go, own, may_have_left=has_left
                )
                if number <= len(there):
                    self.held.add(client, is_short=True)
            self.assertEqual(self.held.replace(client), bool(leaves))
            left = [name for name, _ in self.went]
            self.assertEqual(left, [f"{leaves} limit"] if leaves else [], (there, comes))
            self.assertEqual(len(self.held), len(there) - bool(leaves))
            self.assertEqual(client.tally.count, bool(leaves))

    def test_each_try_keeps_the_one_slot(self) -> None:
        tally = Tally(1)
        held = WaitingClients([], tally=lambda _: tally, now=self.clock.seconds)
        held.clock, held.counts = self.clock, ProcessCounters().backend("")

        def wait() -> bool:
            is_counted = held.reserve(client, 1)
            held.add(client, is_short=True)
            return is_counted

        client = HeldClient(0.0, 60.0, wait, lambda _: None)
        self.assertTrue(wait())
        self.clock.pump([0.1] * 50)
        self.assertEqual((tally.count, client.is_waiting), (1, True))
        held.remove(client)
        self.assertEqual(tally.count, 0)

    def test_at_most_a_hundred_a_second(self) -> None:
        for number in range(500):
            self.join(str(number))
        self.pass_time(1)
        self.is_up = True
        self.assertEqual(self.pass_time(10), [str(number) for number in range(500)])
        times = [at for _, at in self.went]
        most = max(sum(first <= at < first + 1 for at in times) for first in times)
        self.assertLessEqual(most, 100)
        self.assertLess(times[-1] - times[0], 6)
        # Processes share the rate.
        self.setUp()
        self.held.processes = 4
        for number in range(100):
            self.join(str(number))
        self.is_up = True
        self.assertEqual(len(self.pass_time(10)), 100)
        self.assertLessEqual(max(Counter(int(at) for _, at in self.went).values()), 26)

    def test_waiting_ends_although_more_than_that_come(self) -> None:
        for number in range(100):
            self.join(f"{number:04}")
        self.is_up = True
        for number in range(100, 700):
            if len(self.held) == 0:  # they need not wait
                break
            self.join(f"{number:04}")
            self.clock.advance(0.005)
        self.assertEqual(len(self.held), 0)
        names = [name for name, _ in self.went]
        self.assertEqual(names, sorted(names))

    def test_server_that_starts_slowly_gets_them_slowly(self) -> None:
        server = Watched(check=Check("tcp"), slow_start=30.0)
        self.clock = server.clock
        self.held = WaitingClients([lambda: server.pool])
        self.held.clock, self.held.counts = self.clock, ProcessCounters().backend("")
        for number in range(500):
            self.join(str(number))
        self.pass_time(1)
        for ok in (False, False, False, True, True):
            for member in server.members:
                server.pool.check_result(member, ok=ok, why="")
        self.is_up = True
        # At full rate after 30 seconds: at most 15 in three seconds, and 167 in ten.
        self.assertIn(len(self.pass_time(3)), range(10, 16))
        self.assertIn(len(self.pass_time(7)), range(90, 168))

    def test_parts_of_a_client_are_not_lost_from_look_to_look(self) -> None:
        self.held.processes = 3  # so 1.67 each time
        for number in range(400):
            self.join(str(number))
        self.is_up = True
        for _ in range(180):
            self.clock.advance(0.05)
        self.assertIn(len(self.went), range(290, 302))

    def test_server_that_refuses_is_tried_by_the_first_alone(self) -> None:
        for name in "abc":
            self.join(name)
        self.is_up = self.refuses = True
        turns = Counter[str]()
        before = WaitingClients.add

        def count(waiting: WaitingClients, client: HeldClient, *, is_short: bool) -> None:
            turns[str(client.came_at)] += 1
            before(waiting, client, is_short=is_short)

        self.patch(WaitingClients, "add", count)
        self.assertEqual(self.pass_time(10), [])
        self.assertEqual(len(turns), 1)
        self.assertLess(turns["0.0"], 40)
        self.refuses = False
        self.assertEqual(self.pass_time(1), ["a", "b", "c"])

    @given(st.lists(st.sampled_from(_ACTIONS)))
    def test_all_go_on_in_order_whatever_was_before_and_although_others_come(
        self, actions: list[str]
    ) -> None:
        self.setUp()
        clients: list[HeldClient] = []
        joined: dict[str, HeldClient] = {}
        for number, action in enumerate(actions):
            if action == "join":
                clients.append(self.join(f"{number:03}"))
                joined[f"{number:03}"] = clients[-1]
            elif action == "leave" and clients:
                self.held.remove(clients.pop())
            elif action == "mark" and clients:
                self.held.mark_possibly_gone(clients[number % len(clients)])
            elif action in {"up", "refuse"}:
                self.is_up, self.refuses = True, action == "refuse"
            elif action in {"hold", "release"}:
                self.held.hold_until(math.inf if action == "hold" else 0.0)
            self.clock.advance(0.07)
        self.held.hold_until(0.0)
        self.is_up, self.refuses = True, False
        waiting = sum(client.is_waiting for client in clients)
        for number in range(30):  # the longest pause of the first, and a second
            self.join(f"~{number:03}")
            self.clock.advance(0.05)
        names = [name for name, _ in self.went]
        present = [name for name in names if name not in joined or not joined[name].may_have_left]
        self.assertEqual(present, sorted(present))
        self.assertGreaterEqual(len(names), waiting)
        self.pass_time(1)
        self.assert_nobody_waits()

    def test_those_that_leave(self) -> None:
        self.join("a", 5.0)
        self.join("b", 9.0)
        self.assertEqual(self.pass_time(4.9), [])
        self.assertEqual(self.pass_time(0.2), ["a too late"])
        self.assertEqual(self.pass_time(4), ["a too late", "b too late"])
        self.assert_nobody_waits()
        self.went.clear()
        clients = [self.join(name) for name in "abc"]
        self.held.remove(clients[1])
        self.held.remove(clients[1])
        self.assertEqual(len(self.held), 2)
        self.is_up = True
        self.assertEqual(self.pass_time(1), ["a", "c"])
        self.is_up = False
        last = self.join("d")
        self.assertTrue(self.held.blocks)  # nothing is left of those that have gone
        self.held.remove(last)
        self.assert_nobody_waits()

    def test_those_that_left_are_forgotten(self) -> None:
        self.join("a")
        gone = [ref(self.join(str(number))) for number in range(1000)]
        for one in gone:
            client = one()
            if client is not None:
                self.held.remove(client)
            del client
        gc.collect()
        self.assertLess(sum(one() is not None for one in gone), 200)

    def test_none_is_blocked_by_those_that_try_a_server_that_accepts_others(self) -> None:
        slow = HeldClient(1.0, 60.0, lambda: True, self.fail)
        self.join("first")
        self.held.add(slow, is_short=True)
        self.assertTrue(self.held.blocks)
        self.is_up = True
        self.pass_time(1)
        self.assertEqual((slow.is_trying, len(self.held), self.held.blocks), (True, 1, False))
        self.held.add(slow, is_short=True)
        self.assertTrue(self.held.blocks)
        self.held.remove(slow)

    def test_operator_holds_and_releases(self) -> None:
        self.is_up = True
        self.held.hold_until(math.inf)
        self.assertTrue(self.held.blocks)
        for name in "ab":
            self.join(name, 0.0)
        self.join("c", 5.0)
        self.assertEqual(self.pass_time(100), [])
        self.held.hold_until(0.0)
        self.assertTrue(self.held.blocks)  # until those that came before are gone
        self.assertEqual(self.pass_time(1), ["a", "b", "c"])
        self.assertFalse(self.held.blocks)
        self.setUp()
        self.is_up = True  # hold with an end
        self.held.hold_until(self.clock.seconds() + 3)
        self.join("a", 0.0)
        self.assertEqual(self.pass_time(2), [])
        self.assertTrue(self.held.is_held)
        self.assertEqual(self.pass_time(2), ["a"])
        self.assertFalse(self.held.is_held)

    def test_released_ones_get_their_time_anew(self) -> None:
        self.held.hold_until(math.inf)
        self.join("a", 5.0)
        self.pass_time(7)
        self.held.hold_until(0.0)
        self.assertEqual(self.pass_time(4.9), [])
        self.assertEqual(self.pass_time(0.2), ["a too late"])
        # Others that wait again have what is left of it.
        again = self.join("b", 5.0)
        self.pass_time(3)
        self.held.remove(again)
        self.held.add(again, is_short=True)
        self.assertEqual(self.pass_time(1.9), ["a too late"])
        self.assertEqual(self.pass_time(0.2), ["a too late", "b too late"])

    def test_lack_of_a_server_is_reported_again_after_a_release(self) -> None:
        for is_up in (False, True):  # by checks, or by a try
            with self.subTest(is_up=is_up):
                self.setUp()
                self.is_up, self.refuses = is_up, True
                self.held.hold_until(math.inf)
                self.join("a")
                self.pass_time(1)
                self.assertEqual(self.waiting, [True])
                self.held.hold_until(0.0)
                self.pass_time(5)
                self.assertEqual(self.waiting, [True, True])

    def test_who_may_wait(self) -> None:
        client = HeldClient(0.0, 0.0, lambda: True, self.fail)
        self.assertFalse(self.held.may_wait(client))
        self.held.hold_until(math.inf)
        self.assertTrue(self.held.may_wait(client))
        self.held.hold_until(0.0)
        self.assertFalse(self.held.may_wait(client))
        self.held.hold_until(math.inf)
        self.join("a")
        self.held.hold_until(0.0)
        self.assertTrue(self.held.may_wait(client))  # behind those that came before it
        self.pass_time(1)
        self.assertFalse(self.held.may_wait(client))  # no server is up for them either
        timed = HeldClient(0.0, 5.0, lambda: True, self.fail)
        timed.since = self.clock.seconds()
        self.assertTrue(self.held.may_wait(timed))
        self.clock.advance(5)
        self.assertFalse(self.held.may_wait(timed))
