"""Tests of what other machines tell of bans, whatever stands in the store."""

from __future__ import annotations

import json
import math
from ipaddress import ip_network

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.cluster.bans import _changes, _record
from txmux.networks.bans import Ban, Bans

_NETWORK = ip_network("192.0.2.7")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=4,
)
_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "network": st.just("192.0.2.9") | _VALUES,
        "since": st.floats() | _VALUES,
        "until": st.floats() | _VALUES,
        "ban": st.booleans() | _VALUES,
        "reason": _VALUES,
    },
)


class ReadTests(SynchronousTestCase):
    """Records of other machines."""

    @given(st.text() | (_RECORDS | _VALUES).map(json.dumps) | st.none())
    @example("[" * 100_000)
    @example(json.dumps({"network": 7, "since": 1, "ban": False}))
    @example(json.dumps({"network": "192.0.2.9", "since": 10**400, "ban": True}))
    def test_any(self, text: str | None) -> None:
        """Whatever somebody has written there, the records beside it count."""
        told = json.dumps(_record(_NETWORK, Ban(_NETWORK, 5.0), 5.0))
        changes = dict(_changes([text, told], Bans()))
        self.assertEqual(changes[_NETWORK], Ban(_NETWORK, 5.0))
        self.assertLessEqual(len(changes), 2)

    def test_times(self) -> None:
        """A record of no time is no record: it would count for ever, and could not be told again."""
        record = _record(_NETWORK, Ban(_NETWORK, 5.0), 5.0)
        for wrong in (math.nan, math.inf, -math.inf):
            for name, is_ban in (("since", True), ("since", False), ("until", True)):
                told = json.dumps({**record, name: wrong, "ban": is_ban})
                self.assertEqual(_changes([told], Bans([Ban(_NETWORK, 1.0)])), [])
