import gc
import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.held import held_by
from txmux.access.dynamic_networks import Lists, pack, unpack
from txmux.rules.model import NetworkSet, Rules, Settings
from txmux.rules.model.networks import DynamicNetworks

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


_RULES = Rules(Path("x.ini"), Settings(), (), ())
_OLD, _NEW = (NetworkSet([ip_network(text)]) for text in ("192.0.2.0/24", "2001:db8::/32"))


class ListsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lists, self.changes = Lists(), 0
        self.lists.on_change = self.note

    def note(self) -> None:
        self.changes += 1

    def tracked(
        self, kind: str, contents: NetworkSet = _OLD, *beside: DynamicNetworks
    ) -> DynamicNetworks:
        dynamic = DynamicNetworks(kind, "x", contents)
        self.lists.prepare(_RULES, [dynamic, *beside])
        return dynamic

    def test_contents_are_replaced_in_all_rules_in_use(self) -> None:
        first, second = self.tracked("crowdsec"), self.tracked("crowdsec")
        for contents, changes in ((_NEW, 1), (_NEW, 1), (_OLD, 2)):
            self.lists.feed({"crowdsec:x": pack(contents), "crowdsec:other": pack(_OLD)})
            self.assertEqual([first.contents, second.contents], [contents] * 2)
            self.assertEqual(self.changes, changes)

    def test_rules_that_come_later_have_what_is_known_and_old_ones_are_forgotten(self) -> None:
        self.tracked("crowdsec")
        self.lists.feed({"crowdsec:x": pack(_NEW)})
        beside = DynamicNetworks("crowdsec", "x", _OLD)
        later = self.tracked("crowdsec", _OLD, beside)
        self.assertEqual(later.contents, _NEW)
        self.assertIs(later.contents, beside.contents)
        last = self.tracked("file")
        before = held_by(self.lists)
        for _ in range(3):
            last = self.tracked("file")
        gc.collect()
        for _ in range(3):
            self.lists.prepare(_RULES, [last])
        self.assertEqual(held_by(self.lists), before)

    def test_file_that_was_read_again_is_fed_again(self) -> None:
        self.tracked("file")
        self.lists.feed({"file:x": pack(_NEW)})
        later = self.tracked("file")
        self.assertEqual(later.contents, _OLD)
        self.lists.feed({"file:x": pack(_NEW)})
        self.assertEqual(later.contents, _NEW)

    @given(st.lists(st.one_of(_IPV4, _IPV6)))
    def test_round_trip_through_json(self, networks: list[IPv4Network | IPv6Network]) -> None:
        whole = NetworkSet(networks)
        self.assertEqual(unpack(json.loads(json.dumps(pack(whole)))), whole)
        self.assertEqual(pack(_OLD), {"4": {"8": "AMAAAg=="}, "6": {}})  # as other versions read it
