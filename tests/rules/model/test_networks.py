"""Tests of sets of networks."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import IPAddress, IPNetwork, NetworkSet


def networks(*texts: str) -> NetworkSet:
    return NetworkSet([ip_network(text) for text in texts])


# A few high bits only, so that addresses meet networks often.
NETWORKS = st.one_of(
    st.builds(
        lambda high, length: ip_network((high << 24, length), strict=False),
        st.integers(0, 15),
        st.integers(0, 32),
    ),
    st.builds(
        lambda high, length: ip_network((high << 120, length), strict=False),
        st.integers(0, 15),
        st.integers(33, 128),
    ),
)
ADDRESSES = st.one_of(
    st.builds(lambda high: ip_address(high << 24), st.integers(1, 15)),
    st.builds(lambda high: ip_address(high << 120), st.integers(1, 15)),
)


class NetworkSetTests(SynchronousTestCase):
    def test_edges_of_a_network(self) -> None:
        found = networks("10.0.0.0/8", "2001:db8::/32")
        for inside in ("10.0.0.0", "10.255.255.255", "2001:db8::", "2001:db8:ffff::1"):
            self.assertIn(ip_address(inside), found)
        for outside in ("9.255.255.255", "11.0.0.0", "2001:db7::1", "2001:db9::"):
            self.assertNotIn(ip_address(outside), found)

    def test_families_are_apart(self) -> None:
        self.assertNotIn(ip_address("::1"), networks("0.0.0.0/0"))
        self.assertNotIn(ip_address("0.0.0.1"), networks("::/0"))
        self.assertIn(ip_address("::1"), networks("::/0"))

    def test_empty(self) -> None:
        self.assertNotIn(ip_address("10.0.0.1"), networks())
        self.assertEqual(len(networks()), 0)

    @given(st.lists(NETWORKS), ADDRESSES)
    def test_as_if_one_by_one(self, members: list[IPNetwork], address: IPAddress) -> None:
        expected = any(address in member for member in members)
        self.assertEqual(address in NetworkSet(members), expected)

    def test_equal_in_any_order(self) -> None:
        one, two = networks("10.0.0.0/8", "::1"), networks("::1", "10.0.0.0/8")
        self.assertEqual((one, hash(one), len(one)), (two, hash(two), 2))
        self.assertNotEqual(one, networks("::1"))
        self.assertNotEqual(one, "10.0.0.0/8")
        self.assertEqual(repr(one), "NetworkSet(10.0.0.0/8, ::1/128)")
