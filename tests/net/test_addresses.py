"""Addresses of clients are those that Python reads in the same text."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import address
from twisted.trial.unittest import SynchronousTestCase

from txmux.net.addresses import host_text, ip_address_of, text_of


class AddressTest(SynchronousTestCase):
    def read(self, host: str) -> object:
        kind = address.IPv6Address if ":" in host else address.IPv4Address
        found = ip_address_of(kind("TCP", host, 443))
        assert found is not None
        self.assertEqual(found.port, 443)
        return found.host

    @given(st.ip_addresses())
    def test_any(self, ip: IPv4Address | IPv6Address) -> None:
        expected = getattr(ip, "ipv4_mapped", None) or ip
        for host in (str(ip), ip.exploded, str(ip).upper()):
            self.assertEqual(self.read(host), expected)

    @given(st.ip_addresses(v=4))
    def test_mapped_ipv4(self, ip: IPv4Address) -> None:
        for host in (f"::ffff:{ip}", f"::FFFF:{int(ip) >> 16:x}:{int(ip) & 0xFFFF:x}"):
            self.assertEqual(self.read(host), ip)
            self.assertEqual(text_of(address.IPv6Address("TCP", host, 443)), f"{ip}:443")

    def test_asked(self) -> None:
        """A link-local address that a client has asked for keeps its zone, which is left out elsewhere; one without a zone, and any other, is as it is."""
        self.assertEqual(self.read("fe80::1%eth0"), ip_address("fe80::1"))
        self.assertEqual(text_of(address.IPv6Address("TCP", "fe80::1%eth0", 1)), "[fe80::1]:1")
        loopback = socket.if_nametoindex("lo")
        for host, zone, asked in (
            ("fe80::1", loopback, "fe80::1%lo"), ("fe80::1", 0, "fe80::1"), ("::1", 0, "::1"),
            ("::ffff:192.0.2.1", 0, "192.0.2.1"),
        ):  # fmt: skip
            self.assertEqual(host_text(address.IPv6Address("TCP", host, 443, 0, zone)), asked)
        self.assertEqual(host_text(address.IPv4Address("TCP", "192.0.2.1", 443)), "192.0.2.1")
        self.assertEqual(host_text(address.UNIXAddress(b"/run/x.sock")), "")

    def test_none(self) -> None:
        for one, text in (
            (address.UNIXAddress(b"/run/x.sock"), "unix:/run/x.sock"),
            (address.UNIXAddress(None), "unix"),
            (address.HostnameAddress(b"x", 1), "HostnameAddress"),
        ):
            self.assertIsNone(ip_address_of(one))
            self.assertEqual(text_of(one), text)
        for host in ("", "localhost", "1.2.3", "01.2.3.4", "::g", "1.2.3.4\0"):
            self.assertRaises(ValueError, self.read, host)
