from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.model.test_networks import ADDRESSES, NETWORKS, networks
from txmux.rules.lint.scopes import EVERYONE, WITH_ADDRESS, ClientSet, set_of
from txmux.rules.model import Clients, NetworkSet
from txmux.transport import IPAddress

SETS = st.one_of(st.none(), st.lists(NETWORKS, max_size=4).map(NetworkSet))


def has(some: ClientSet, address: IPAddress) -> bool:
    return bool(some & set_of(Clients(NetworkSet([ip_network(address)]))))


class ClientsTests(SynchronousTestCase):
    @given(st.tuples(SETS, SETS), st.tuples(SETS, SETS), ADDRESSES)
    def test_operations_are_those_of_addresses(
        self, first: Any, second: Any, address: IPAddress
    ) -> None:
        def served(inside: NetworkSet | None, outside: NetworkSet | None) -> bool:
            return (inside is None or address in inside) and not (outside and address in outside)

        one, other = set_of(Clients(*first)), set_of(Clients(*second))
        in_one, in_other = served(*first), served(*second)
        self.assertEqual(has(one, address), in_one)
        self.assertEqual(has(one | other, address), in_one or in_other)
        self.assertEqual(has(one & other, address), in_one and in_other)
        self.assertEqual(has(one - other, address), in_one and not in_other)
        self.assertEqual(has(~one, address), not in_one)

    @given(SETS, SETS)
    def test_equal_sets_are_equal_values(
        self, allowed: NetworkSet | None, excluded: NetworkSet | None
    ) -> None:
        some = set_of(Clients(allowed, excluded))
        self.assertEqual((~~some, (some - WITH_ADDRESS) | (some & WITH_ADDRESS)), (some, some))
        self.assertEqual(bool(some - some), bool(ClientSet(())))

    def test_no_address(self) -> None:
        every = set_of(Clients(networks("0.0.0.0/0", "::/0")))
        self.assertEqual(every, WITH_ADDRESS)
        self.assertEqual(EVERYONE - every, set_of(Clients(None, networks("0.0.0.0/0", "::/0"))))
        self.assertTrue(EVERYONE - every)
