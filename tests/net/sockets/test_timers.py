import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.held import held_by
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.timers import _MOST_QUEUES, Timers


class TimersTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.called: list[str] = []

    def test_no_memory(self) -> None:
        """Where memory lacks to be rung again, those that wait are not forgotten, though no other timer follows."""

        def lack_once() -> None:
            def call_later(*arguments: Any) -> Any:
                patched.restore()
                raise MemoryError(arguments)

            patched = self.patch(self.clock, "callLater", call_later)

        self.addCleanup(setattr, MEMORY, "short_since", None)
        lack_once()
        self.assertRaises(MemoryError, self.timers.callLater, 1, self.called.append, "a")
        self.assertEqual(self.timers.getDelayedCalls(), [])
        self.timers.callLater(1, self.called.append, "a")
        self.clock.advance(0.5)
        self.timers.callLater(1, self.called.append, "b")
        lack_once()
        self.clock.advance(0.5)
        self.assertEqual(self.called, ["a"])
        self.clock.pump([0.125] * 4)
        self.assertEqual(self.called, ["a", "b"])

    def test_rest(self) -> None:
        """Where nobody waits the reactor is let go of, and only there."""
        one = self.timers.callLater(5, self.called.append, "x")
        self.timers.callLater(6, self.called.append, "y")
        one.cancel()
        self.timers.drop_idle()
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [6])
        self.timers.callLater(5, self.called.append, "z")
        self.clock.advance(6)
        self.assertEqual(self.called, ["z", "y"])
        self.timers.drop_idle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_of_the_reactor(self) -> None:
        verifyObject(IReactorTime, self.timers)
        for _ in range(1000):
            self.timers.callLater(5, self.called.append, "x").cancel()
            verifyObject(IDelayedCall, self.timers.callLater(5, self.called.append, "x"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(5)
        self.assertEqual(len(self.called), 1000)

    def test_many_lengths_are_bounded(self) -> None:
        for number in range(10_000):
            if number == _MOST_QUEUES + 1:  # those without a timer were let go of at once
                self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.timers.callLater(5 + number / 1000, self.called.append, "x").cancel()
        self.assertLess(held_by(self.timers), 1000)
        for number in range(200):
            self.timers.callLater(5 + number, self.called.append, "y")
        self.clock.advance(300)
        self.assertEqual(self.called, ["y"] * 200)

    def test_raises(self) -> None:
        self.timers.callLater(5, lambda: 1 // 0)
        self.timers.callLater(5, sys.exit)
        self.timers.callLater(5, self.called.append, "x")
        self.clock.advance(5)
        self.assertEqual(self.called, ["x"])
        for kind in (ZeroDivisionError, SystemExit):
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_set_by_a_call(self) -> None:
        again = self.timers.callLater

        def ring() -> None:
            self.called.append("ring")
            other.cancel()
            again(5, self.called.append, "again")

        again(5, ring)
        other = again(5, self.called.append, "other")
        self.clock.advance(5)
        self.clock.advance(5)
        self.assertEqual(self.called, ["ring", "again"])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "cancel", "reset", "delay", "advance", "rest"]),
                st.integers(0, 5),
                st.integers(0, 7),
            )
        )
    )
    def test_like_a_clock(self, steps: list[tuple[str, int, int]]) -> None:
        clocks = Clock(), Clock()
        makers = clocks[0], Timers(clocks[1])
        reported: tuple[list[tuple[int, float]], ...] = ([], [])
        calls: tuple[list[IDelayedCall], ...] = ([], [])
        for what, length, which in steps:
            for clock, maker, heard, made in zip(clocks, makers, reported, calls, strict=True):
                if what == "set":
                    note = lambda c, h, n: h.append((n, c.seconds()))  # noqa: E731
                    made.append(maker.callLater(length, note, clock, heard, len(made)))
                elif what == "advance":
                    clock.pump([1] * length)
                elif what == "rest":
                    if isinstance(maker, Timers):
                        maker.drop_idle()
                elif which < len(made) and made[which].active():
                    call = made[which]
                    call.cancel() if what == "cancel" else getattr(call, what)(length)
            times = [[one.getTime() for one in made if one.active()] for made in calls]
            self.assertEqual(*times)
        for clock in clocks:
            clock.pump([1] * 40)
        self.assertEqual(sorted(reported[0]), sorted(reported[1]))
