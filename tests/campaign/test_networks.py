import os
import socket
import time
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.bytes.part import Rounds
from campaign.networks import cables
from campaign.networks.conditions import CONDITIONS
from campaign.networks.part import over
from tests.support.kit import PATIENCE, Namespace


class NetworksTests(SynchronousTestCase):
    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root makes network namespaces")

    def test_bytes(self) -> None:
        """All bytes of connections, and datagrams, arrive over packets that are late, lost, short and out of order."""
        found = over("all", Budget(1, 3), Rounds.try_streams)
        self.assertEqual(found.defects, [])
        self.assertNotEqual(found.figures["bytes looked at"], "0")
        found = over("all", Budget(1, 3), Rounds.try_datagrams)
        self.assertEqual(found.defects, [])
        self.assertNotIn("; 0 answers", found.figures["datagrams"])

    def test_cable(self) -> None:
        """When a client's cable is pulled, connections end as their settings say."""
        found, defects = cables.pulled("kernel", "client", ours=False)
        self.assertEqual(defects, [])
        self.assertEqual(found.keys(), cables.promises("client", ours=False).keys())

    def test_late(self) -> None:
        """On such an interface no datagram is lost, each is late, and they arrive in another order; not so after its end."""
        condition = CONDITIONS["late"]
        namespace = Namespace(self)
        holding = condition.hold(namespace)
        namespace.enter()
        for host in ("127.0.0.1", "::1"):
            numbers, lateness = _send_numbers(host)
            self.assertEqual(sorted(numbers), list(range(_NUMBERS)))
            self.assertNotEqual(numbers, sorted(numbers))
            self.assertGreaterEqual(min(lateness), condition.least / 1000)
        holding.end()
        self.assertEqual(_send_numbers("127.0.0.1")[0], list(range(_NUMBERS)))


_NUMBERS = 100


def _send_numbers(host: str) -> tuple[list[int], list[float]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as client,
        socket.socket(family, socket.SOCK_DGRAM) as server,
    ):
        server.bind((host, 0))
        server.settimeout(PATIENCE)
        began = []
        for number in range(_NUMBERS):
            began.append(time.monotonic())
            client.sendto(b"%d" % number, server.getsockname())
        numbers, lateness = [], []
        for _ in range(_NUMBERS):
            numbers.append(int(server.recv(100)))
            lateness.append(time.monotonic() - began[numbers[-1]])
    return numbers, lateness
