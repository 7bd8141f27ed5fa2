"""Doing something once for all who ask for it meanwhile."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmux.serving.coalescing import Coalescer


class CoalescingTest(SynchronousTestCase):
    """`Coalescer`."""

    def setUp(self) -> None:
        self.done: list[Deferred[int]] = []
        self.coalescing = Coalescer(self.do)

    async def do(self) -> int:
        """Do it until the test says what comes of it."""
        done: Deferred[int] = Deferred()
        self.done.append(done)
        return await done

    def test_storm(self) -> None:
        """Those who ask while it is being done get one more, together."""
        first = self.coalescing.ask()
        storm = [self.coalescing.ask() for _ in range(50)]
        self.assertEqual(len(self.done), 1)
        self.done[0].callback(1)
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(len(self.done), 2)
        self.done[1].callback(2)
        self.assertEqual([self.successResultOf(one) for one in storm], 50 * [2])
        self.assertEqual(len(self.done), 2)

    def test_failure(self) -> None:
        """What is raised goes to those who asked, and to nobody else."""
        first, second = self.coalescing.ask(), self.coalescing.ask()
        self.done[0].errback(ValueError())
        self.failureResultOf(first, ValueError)
        self.done[1].callback(2)
        self.assertEqual(self.successResultOf(second), 2)

    def test_idle(self) -> None:
        """One may wait until nothing is being done."""
        self.successResultOf(self.coalescing.idle())
        first, second = self.coalescing.ask(), self.coalescing.ask()
        idle = self.coalescing.idle()
        self.done[0].callback(1)
        self.assertNoResult(idle)
        self.done[1].callback(2)
        self.successResultOf(idle)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (1, 2))
