import os
import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.net.relay.kernel import PipePool
from txmux.net.sockets.descriptors import Descriptors, count_open


class DescriptorsTest(SynchronousTestCase):
    def test_counts_open_and_not_highest(self) -> None:
        before = count_open()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            high = 900
            os.dup2(ours.fileno(), high)
            self.addCleanup(os.close, high)
            self.assertEqual(count_open(), before + 3)

    @given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 40))
    def test_never_too_many(self, limit: int, others: int, reserved: int) -> None:
        """However many are let in, there is a descriptor for each, for its server, and for all that was reserved."""
        clients = 0
        descriptors = Descriptors(lambda: others + clients, lambda: limit)
        descriptors.reserved = reserved
        while descriptors.room():
            clients += 1
            descriptors.client_accepted()
            descriptors.reserved += 1
        if clients:
            self.assertLessEqual(others + 2 * clients + reserved, limit)
        self.assertGreaterEqual(others + 2 * (clients + 1) + reserved + 16, limit - 1)

    def test_most(self) -> None:
        """Whatever the limit, no more are used than the reactor can watch."""
        descriptors = Descriptors(lambda: 900, lambda: 5000)
        self.assertTrue(descriptors.room())
        descriptors.most = 900
        descriptors.count_again()
        self.assertEqual((descriptors.room(), descriptors.count_and_limit()), (0, (900, 900)))

    def test_counts_seldom_far_from_limit(self) -> None:
        counted: list[int] = []
        descriptors = Descriptors(lambda: counted.append(1) or 20, lambda: 1024)  # type: ignore[func-returns-value]
        for _ in range(100):
            descriptors.room()
            descriptors.client_accepted()
        self.assertEqual(len(counted), 1)

    def test_lowered_limit_holds(self) -> None:
        limits, clients = [1024], 0
        descriptors = Descriptors(lambda: 20 + 2 * clients, lambda: limits[-1])
        for _ in range(5):
            self.assertGreater(descriptors.room(), 0)
            descriptors.client_accepted()
            clients += 1
        limits.append(20 + 2 * clients + 16)
        while descriptors.room():
            descriptors.client_accepted()
            clients += 1
        self.assertLessEqual(20 + 2 * clients, limits[-1])
        limits.append(1024)
        self.assertGreater(descriptors.room(), 0)

    def test_offered(self) -> None:
        """Of what was free, clients get what is not offered, at once; waiting ports are called when less is."""
        called: list[None] = []
        descriptors = Descriptors(lambda: 40, lambda: 256)
        self.assertGreater(descriptors.room(), 20)
        descriptors.offer(190)
        self.assertEqual(descriptors.room(), 2)
        descriptors.offer(10)
        self.assertEqual(descriptors.room(), 0)
        self.assertFalse(descriptors.can_spare(1))
        descriptors.call_when_freed(lambda: called.append(None))
        descriptors.offer(0)
        self.assertEqual(called, [])
        descriptors.offer(-100)
        self.assertEqual(called, [None])
        self.assertGreater(descriptors.room(), 10)

    def test_pipes(self) -> None:
        """A pipe is made only where that leaves enough; those that are kept are given back first."""
        open_now = [0]
        descriptors = Descriptors(lambda: open_now[0], lambda: 20)
        pool = PipePool(descriptors=descriptors)
        descriptors.add_cache(pool.clear)
        pipe = pool.take_pipe()
        assert pipe is not None
        open_now[0] = 2
        pool.give_back(pipe)
        before = count_open()
        open_now[0] = 19
        self.assertEqual((descriptors.room(), count_open()), (0, before - 2))
        self.assertIsNone(pool.take_pipe())
