"""Clients that wait are served one of each source in turn."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.net.sockets.port import ClientsInTurns


class ClientsInTurnsTest(SynchronousTestCase):
    def test_order(self) -> None:
        """An address of IPv4 is a source, also if it is mapped, or a network of IPv6; clients of a source keep their order."""
        waiting = ClientsInTurns()
        hosts = 3 * ["192.0.2.1"] + ["2001:db8::1", "2001:db8::2%eth0", "2001:db8:0:1::1"]
        hosts += ["::ffff:192.0.2.7", "::ffff:192.0.2.8", "192.0.2.2"]
        for number, host in enumerate(hosts):
            client: Any = (number, (host, 50_000))
            waiting.add(client)
        taken = [waiting.take()[0] for _ in range(waiting.count)]
        self.assertEqual(taken, [0, 3, 5, 6, 7, 8, 1, 4, 2])
        self.assertFalse(waiting.count)
