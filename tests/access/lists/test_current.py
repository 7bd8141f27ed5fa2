"""Tests of sets of networks in messages."""

import json
from ipaddress import IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.lists.current import pack, unpack
from txmux.rules.model import NetworkSet

_IPV4 = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
_IPV6 = st.builds(
    lambda number, length: IPv6Network((number, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


class PackingTests(SynchronousTestCase):
    @given(st.lists(st.one_of(_IPV4, _IPV6)))
    def test_round_trip_through_json(self, networks: list[IPv4Network | IPv6Network]) -> None:
        whole = NetworkSet(networks)
        self.assertEqual(unpack(json.loads(json.dumps(pack(whole)))), whole)
