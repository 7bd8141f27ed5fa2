from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import IPNetwork, NetworkSet
from txmux.rules.model.networks import Public, Reachable, is_public
from txmux.transport import IPAddress


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


class NetworkTests(SynchronousTestCase):
    def test_members_equal_in_any_order(self) -> None:
        """Up to the edges of a network; the families are apart."""
        for members, inside, outside in (
            (("10.0.0.0/8", "2001:db8::/32"), ("10.0.0.0", "10.255.255.255", "2001:db8::", "2001:db8:ffff::1"),
             ("9.255.255.255", "11.0.0.0", "2001:db7::1", "2001:db9::")),
            (("0.0.0.0/0",), (), ("::1",)), (("::/0",), ("::1",), ("0.0.0.1",)),
        ):  # fmt: skip
            for text in (*inside, *outside):
                self.assertIs(ip_address(text) in networks(*members), text in inside, text)
        one, two = networks("10.0.0.0/8", "::1"), networks("::1", "10.0.0.0/8")
        self.assertEqual((one, hash(one), len(one)), (two, hash(two), 2))
        self.assertNotEqual(one, networks("::1"))
        self.assertNotEqual(one, "10.0.0.0/8")
        self.assertEqual(repr(one), "NetworkSet(10.0.0.0/8, ::1/128)")

    @given(st.lists(NETWORKS), ADDRESSES)
    def test_as_if_one_by_one(self, members: list[IPNetwork], address: IPAddress) -> None:
        expected = any(address in member for member in members)
        self.assertEqual(address in NetworkSet(members), expected)

    def test_ranges_also_with_others(self) -> None:
        for text in (
            *("0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1"),
            *("192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.9.9"),
            *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.9.9.9", "240.0.0.1"),
            *("255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
            *("64:ff9b:1::808:808", "100::1", "2001::1", "2001:2::1", "2001:db8::1", "2001:10::1"),
            *("2002:a00:1::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1"),
            *("fec0::1", "ff02::1", "64:ff9b::7f00:1", "2002:c0a8:101::"),
            "2001:0:808:808::f5ff:fffe",  # Teredo with the client 10.0.0.1
            "2001:0:a00:1::f7f7:f7f7",  # and with the server 10.0.0.1
        ):
            self.assertFalse(is_public(ip_address(text)), text)
        for text in (
            *("8.8.8.8", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"),
            *(
                "2606:4700::1111", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
                "2002:808:808::1",
            ),
            "2001:0:808:808::f7f7:f7f7",
        ):  # fmt: skip
            self.assertTrue(is_public(ip_address(text)), text)
        some = Reachable([Public.PUBLIC, ip_network("10.0.0.0/8")])
        inside = "8.8.8.8", "10.1.1.1", "::ffff:10.1.1.1"
        for text in (*inside, "127.0.0.1", "64:ff9b::a00:1"):
            self.assertIs(ip_address(text) in some, text in inside)
        fewer = Reachable([ip_network("10.0.0.0/8")])
        self.assertNotIn(ip_address("8.8.8.8"), fewer)
        self.assertNotEqual(some, fewer)
        self.assertEqual(hash(some), hash(Reachable([ip_network("10.0.0.0/8"), Public.PUBLIC])))

    @given(st.integers(0, 2**32 - 1))
    def test_ipv4_says_what_ipv6_around_it_is(self, number: int) -> None:
        inside = IPv4Address(number)
        public = is_public(inside)
        for first, shift in (("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
            around = IPv6Address(int(IPv6Address(first)) | number << shift)
            self.assertIs(is_public(around), public, around)
        if public:
            self.assertTrue(inside.is_global, inside)

    @given(st.integers(0, 2**128 - 1) | st.integers(0x2000 << 112, (0x4000 << 112) - 1))
    def test_nothing_that_python_calls_private(self, number: int) -> None:
        address = IPv6Address(number)
        around_v4 = address.sixtofour or address.teredo or address.ipv4_mapped
        if is_public(address) and not around_v4:
            self.assertTrue(address.is_global, address)
