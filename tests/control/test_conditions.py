from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.conditions import Coalescer


class CoalescingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.done: list[Deferred[int]] = []
        self.coalescing = Coalescer(self.do)

    async def do(self) -> int:
        """Do it until the test says what comes of it."""
        done: Deferred[int] = Deferred()
        self.done.append(done)
        return await done

    def test_requests_during_a_run_share_the_next_one_until_idle(self) -> None:
        first = self.coalescing.request()
        storm = [self.coalescing.request() for _ in range(50)]
        self.assertEqual(len(self.done), 1)
        self.done[0].callback(1)
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(len(self.done), 2)
        self.done[1].callback(2)
        self.assertEqual([self.successResultOf(one) for one in storm], 50 * [2])
        self.assertEqual(len(self.done), 2)
        self.setUp()
        first, second = self.coalescing.request(), self.coalescing.request()
        self.done[0].errback(ValueError())
        self.failureResultOf(first, ValueError)
        self.done[1].callback(2)
        self.assertEqual(self.successResultOf(second), 2)
        self.done.clear()
        self.successResultOf(self.coalescing.wait_until_idle())
        first, second = self.coalescing.request(), self.coalescing.request()
        idle = self.coalescing.wait_until_idle()
        self.done[0].callback(1)
        self.assertNoResult(idle)
        self.done[1].callback(2)
        self.successResultOf(idle)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (1, 2))

    def test_pause_of_three_times_the_last_run_up_to_two_seconds(self) -> None:
        clock = Clock()
        coalescing = Coalescer(self.do, clock, clock.seconds)
        for took, rest in ((0.1, 0.3), (10.0, 2.0)):
            last = coalescing.request()
            clock.advance(took)
            self.done.pop().callback(1)
            self.assertEqual(self.successResultOf(last), 1)
            self.assertEqual(clock.getDelayedCalls(), [])
            following = coalescing.request()
            clock.advance(rest - 0.01)
            self.assertEqual(self.done, [])
            clock.advance(0.02)
            self.done.pop().callback(2)
            self.assertEqual(self.successResultOf(following), 2)
