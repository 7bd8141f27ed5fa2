"""Clients that were dropped since the queue of a listening socket was full, as the system counts them."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import eventually
from tests.support.changes import set_wall_clock
from txmux.net.sockets.plainsocket import IPPROTO_MPTCP
from txmux.net.sockets.queues import ListenQueues


class ListenQueuesTest(SynchronousTestCase):
    def listening(self, protocol: int = 0, backlog: int = 1) -> socket.socket:
        listening = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol))
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        return listening

    def connect(self, listening: socket.socket, count: int) -> None:
        for _ in range(count):
            client = self.enterContext(socket.socket())
            client.setblocking(False)  # noqa: FBT003
            client.connect_ex(listening.getsockname())

    def test_which_socket_it_was(self) -> None:
        """Another program's overflow is not this one's, and after a minute it is over."""
        set_wall_clock(self, 5e8)
        for protocol in (0, IPPROTO_MPTCP):
            now = [100.0]
            queues = ListenQueues(lambda: now[0])  # noqa: B023
            full, other = self.listening(protocol), self.listening(protocol, 100)
            sockets = {"full": full, "other": other}
            elsewhere = self.listening()
            queues.observe(sockets)
            self.connect(elsewhere, 6)
            self.connect(other, 6)
            queues.observe(sockets)
            self.assertEqual(queues.lost(), {})
            self.connect(full, 6)

            def is_seen() -> bool:
                queues.observe(sockets)  # noqa: B023
                return bool(queues.lost())  # noqa: B023

            eventually(is_seen, "it is noticed")
            ((key, overflow),) = queues.lost().items()
            self.assertEqual((key, overflow.since), ("full", 5e8))
            self.assertGreater(overflow.count, 0)
            now[0] += 60
            self.assertEqual(queues.lost(), {})
