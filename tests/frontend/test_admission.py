"""Who is let in."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from txmux.frontend.admission import Admission, Tally
from txmux.rules.model import Listener
from txmux.rules.networks import NetworkSet

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)


class AdmissionTest(SynchronousTestCase):
    """`Admission`."""

    def test_both_limits(self) -> None:
        """Who is refused by one limit does not count for the other."""
        service, listener = Tally(2), Tally(1)
        admission = Admission(Listener("x"), service, listener)
        self.assertIsNone(admission.enter(CLIENT))
        self.assertEqual(admission.enter(CLIENT), "limit")
        self.assertEqual((service.count, listener.count), (1, 1))
        admission.leave()
        self.assertEqual((service.count, listener.count), (0, 0))

    def test_denied_do_not_count(self) -> None:
        """Who is kept out by a network does not count at all."""
        service = Tally(1)
        settings = Listener("x", deny=NetworkSet([ip_network("192.0.2.0/24")]))
        admission = Admission(settings, service, Tally())
        self.assertEqual(admission.enter(CLIENT), "denied")
        self.assertEqual(service.count, 0)

    def test_without_address(self) -> None:
        """Clients of UNIX sockets are outside of every network."""
        networks = NetworkSet([ip_network("0.0.0.0/0"), ip_network("::/0")])
        for settings, wanted in [
            (Listener("x", allow=networks), "denied"),
            (Listener("x", deny=networks), None),
        ]:
            admission = Admission(settings, Tally(), Tally())
            self.assertEqual(admission.enter(UNIXAddress(b"")), wanted)
