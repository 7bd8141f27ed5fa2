from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.admission import Admission, Refused, Tally
from txmux.access.per_source import Permit
from txmux.net.addresses import ip_address_of
from txmux.rules.model import Clients, Listener, NetworkSet, Rate
from txmux.wire.proxyprotocol.header import Address

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)
OTHER = IPv4Address("TCP", "192.0.2.2", 40000)
LOCAL = UNIXAddress(b"")


class AdmissionTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def admission(self, *, service: Tally | None = None, **settings: Any) -> Admission:
        return Admission(Listener("x", **settings), self.clock.seconds, service=service)

    def enter(self, admission: Admission, peer: IAddress, client: str = "") -> Permit | None:
        told = Address(ip_address(client), 1) if client else None
        return admission.enter(told or ip_address_of(peer))

    def assert_refused(
        self, reason: str, admission: Admission, peer: IAddress, client: str = ""
    ) -> None:
        refused = self.assertRaises(Refused, self.enter, admission, peer, client)
        self.assertEqual(refused.reason, reason)

    def test_client_refused_by_one_limit_does_not_count_for_the_other(self) -> None:
        service, listener = Tally(2), Tally(1)
        admission = Admission(Listener("x"), self.clock.seconds, service=service, listener=listener)
        self.enter(admission, CLIENT)
        self.assert_refused("limit", admission, CLIENT)
        self.assertEqual((service.count, listener.count), (1, 1))
        other = Admission(Listener("y"), self.clock.seconds, service=service)
        self.enter(other, CLIENT)
        self.assert_refused("limit", other, CLIENT)
        other.leave(None)
        admission.leave(None)
        self.assertEqual((service.count, listener.count), (0, 0))

    def test_allowed_network_is_admitted_and_a_denied_client_does_not_count(self) -> None:
        service = Tally(1)
        networks = NetworkSet([ip_network("192.0.2.0/24")])
        admission = self.admission(
            service=service, clients=Clients(excluded=networks), max_connections_per_source=1
        )
        self.assert_refused("denied", admission, CLIENT)
        self.assertEqual(service.count, 0)
        admission = self.admission(clients=Clients(NetworkSet([ip_network("192.0.2.1")])))
        self.assertIsNone(self.enter(admission, CLIENT))
        self.assert_refused("denied", admission, OTHER)

    def test_trusted_proxys_client_is_checked(self) -> None:
        networks = NetworkSet([ip_network("198.51.100.0/24")])
        admission = self.admission(clients=Clients(networks), max_connections_per_source=1)
        self.assert_refused("denied", admission, CLIENT)
        self.enter(admission, CLIENT, "198.51.100.1")
        self.enter(admission, CLIENT, "198.51.100.2")
        self.assert_refused("limit", admission, OTHER, "198.51.100.1")

    def test_unix_client_is_outside_every_network_and_has_no_source(self) -> None:
        networks = NetworkSet([ip_network("0.0.0.0/0"), ip_network("::/0")])
        self.assert_refused("denied", self.admission(clients=Clients(networks)), LOCAL)
        admission = self.admission(clients=Clients(excluded=networks), max_connections_per_source=1)
        for _ in range(3):
            self.assertIsNone(self.enter(admission, LOCAL))

    def test_ipv4_counts_by_address_and_ipv6_by_network(self) -> None:
        """A link-local address is in its network on any interface."""
        admission = self.admission(max_connections_per_source=1)
        self.enter(admission, CLIENT)
        self.assert_refused("limit", admission, IPv6Address("TCP", "::ffff:192.0.2.1", 1))
        for entered, refused in (("2001:db8::1", "2001:db8::2"), ("fe80::1%lo", "fe80::2%lo")):
            self.enter(admission, IPv6Address("TCP", entered, 1))
            self.assert_refused("limit", admission, IPv6Address("TCP", refused, 1))
        self.enter(admission, IPv6Address("TCP", "2001:db8:0:1::1", 1))

    def test_client_refused_by_another_limit_or_moved_away_makes_room(self) -> None:
        admission = self.admission(max_connections=1, max_connections_per_source=1)
        permit = self.enter(admission, CLIENT)
        self.assert_refused("limit", admission, OTHER)
        admission.leave(permit)
        self.enter(admission, OTHER)
        admission = self.admission(max_connections=1, connection_rate_per_source=Rate(1.0, 2))
        permit = self.enter(admission, CLIENT)
        for _ in range(2):
            self.assert_refused("limit", admission, CLIENT)
        admission.leave(permit)
        self.enter(admission, CLIENT)
        admission = self.admission(max_connections_per_source=1)
        permit = self.enter(admission, CLIENT)
        assert permit is not None
        here, there = (Address(ip_address(f"192.0.2.{number}"), 1) for number in (1, 2))
        self.assertIs(admission.move(permit, here, here), permit)
        moved = admission.move(permit, here, there)
        self.assertIsNot(moved, permit)
        permit.release()
        self.assert_refused("limit", admission, OTHER)
        admission.leave(moved)
        for peer in (CLIENT, LOCAL, CLIENT):
            admission.move_away(self.enter(admission, peer))
        self.enter(admission, CLIENT)
        self.assert_refused("limit", admission, CLIENT)
