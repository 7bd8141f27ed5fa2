"""The part ``networks`` in short: a bad path, a bad interface, a pulled cable, one of the tests again."""

import os
import socket
import time
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from campaign.networks import again, beside, cables, flights, plugged
from campaign.networks.conditions import CONDITIONS
from campaign.networks.transfers import Transfers
from tests.interop.children import PATIENCE
from tests.interop.namespaces import Namespace


class NetworksTests(SynchronousTestCase):
    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root makes network namespaces")

    def test_programs(self) -> None:
        """Real programs move their bytes over packets that are late, lost, doubled and out of order."""
        transfers = Transfers()
        programs = ("curl, TLS ended", "redis-cli", "dig over UDP", "aioquic")
        transfers.run("all", relay="kernel", seed=1, size=2**16, programs=programs)
        self.assertEqual(transfers.defects, [])
        self.assertEqual(transfers.programs, len(programs))
        self.assertGreater(transfers.moved, 4 * 2**16 - 1)

    def test_first_flights(self) -> None:
        """Clients whose bytes come in pieces and late are led where they are led otherwise."""
        count, defects = flights.decide("all", 1, every=8)
        self.assertEqual((count, defects), (51, []))

    def test_half_a_hello(self) -> None:
        """So is one that half a hello is lost of for a while, unless its time is over before."""
        routes = {name: route for name, (route, _) in flights.lose_half_a_hello().items()}
        self.assertEqual(routes, flights.LATE)

    def test_cable(self) -> None:
        """When a client's cable is pulled, connections end as their settings say."""
        found, defects = cables.pulled("kernel", "client", ours=False)
        self.assertEqual(defects, [])
        self.assertEqual(found.keys(), cables.promises("client", ours=False).keys())

    def test_cable_plugged_in_again(self) -> None:
        self.assertEqual(plugged.plugged_in_again("kernel", "client", ours=False), [])

    def test_beside(self) -> None:
        """Other proxies, and no proxy at all, are tried with the same programs over the same path."""
        peers = (beside.STRAIGHT, "HAProxy")
        outcome = beside.transfer("narrow", 1, rounds=1, size=2**16, peers=peers)
        self.assertEqual(outcome.failures, [])
        self.assertEqual({peer for peer, _ in outcome.seconds}, {*peers})
        self.assertGreater(outcome.moved, len(peers) * 4 * 2**16)

    def test_again(self) -> None:
        """Tests with real programs pass on a bad loopback interface, as they are."""
        test = "tests/interop/test_servers.py::NginxTests::test_half_close"
        outcomes = again.run_again([test], "tiny")
        self.assertEqual([(one.test, one.what) for one in outcomes], [(test, "passed")])

    def test_again_late(self) -> None:
        """So they do where each packet is late, and some overtake others."""
        outcomes = again.run_again(["tests/interop/test_servers.py::OpenSshTests"], "late")
        self.assertEqual({one.what for one in outcomes}, {"passed"})

    def test_late(self) -> None:
        """On such an interface no datagram is lost, each is late, and they arrive in another order."""
        condition = CONDITIONS["late"]
        namespace = Namespace(self)
        condition.spoil_itself(namespace)
        namespace.enter()
        for host in ("127.0.0.1", "::1"):
            numbers, lateness = _send_numbers(host)
            self.assertEqual(sorted(numbers), list(range(_NUMBERS)))
            self.assertNotEqual(numbers, sorted(numbers))
            self.assertGreaterEqual(min(lateness), condition.least / 1000)

    def test_late_no_more_after_its_end(self) -> None:
        namespace = Namespace(self)
        holding = CONDITIONS["late"].hold(namespace)
        namespace.enter()
        holding.end()
        numbers, _ = _send_numbers("127.0.0.1")
        self.assertEqual(numbers, list(range(_NUMBERS)))


_NUMBERS = 100


def _send_numbers(host: str) -> tuple[list[int], list[float]]:
    """Send numbered datagrams, and give their numbers as they arrive, with the seconds that each took."""
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
