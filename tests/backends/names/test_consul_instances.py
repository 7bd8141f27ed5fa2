"""Tests of what is read from Consul's answers."""

from __future__ import annotations

import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.consul import Instance
from txmux.backends.names.consul import MOST_INSTANCES, NotConsulError, instances_in, next_index

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["Node", "Service", "Checks", "Address", "Port", "Weights", "Status"]),
            inner,
        )
    ),
)


def _answer(*instances: Instance) -> bytes:
    return json.dumps([one.told("web") for one in instances]).encode()


def _texts(body: bytes, *, passing: bool = False) -> list[tuple[str, int, int]]:
    found = instances_in(body, passing=passing).addresses
    return [(one.host, one.port, one.weight) for one in found]


class InstancesTests(SynchronousTestCase):
    """Who clients may be led to."""

    def test_addresses(self) -> None:
        """The address of the service counts, else that of the node; the order does not depend on the answer's."""
        instances = [
            Instance(80, "10.0.0.9", "10.0.0.2"),
            Instance(80, "10.0.0.1"),
            Instance(443, "10.0.0.1"),
            Instance(80, "10.0.0.3", "2001:DB8:0::1"),
        ]
        for _ in range(4):
            Random(4).shuffle(instances)
            self.assertEqual(
                _texts(_answer(*instances)),
                [
                    ("10.0.0.1", 80, 1),
                    ("10.0.0.1", 443, 1),
                    ("10.0.0.2", 80, 1),
                    ("2001:db8::1", 80, 1),
                ],
            )

    def test_health(self) -> None:
        body = _answer(
            Instance(1, weights=(9, 2)),
            Instance(2, weights=(9, 2), status="warning"),
            Instance(3, status="critical"),
            Instance(4, status="unheard-of"),
        )
        self.assertEqual(_texts(body), [("127.0.0.1", 1, 9), ("127.0.0.1", 2, 2)])
        self.assertEqual(_texts(body, passing=True), [("127.0.0.1", 1, 9)])

    def test_no_weights_is_1(self) -> None:
        body = _answer(Instance(1, weights=None), Instance(2, weights=(3, 1)))
        self.assertEqual([weight for _, _, weight in _texts(body)], [1, 3])

    def test_weight_0_is_last_priority(self) -> None:
        warned = Instance(1, weights=(5, 0), status="warning")
        body = _answer(warned, Instance(2, weights=(5, 0)), Instance(3, weights=(0, 0)))
        found = instances_in(body, passing=False).addresses
        self.assertEqual(
            [(one.port, one.weight, one.priority) for one in found],
            [(1, 0, 1), (2, 5, 0), (3, 0, 1)],
        )

    def test_without_port_or_address(self) -> None:
        body = _answer(Instance(0), Instance(65536), Instance(5, address="db.example.com"))
        found = instances_in(body, passing=False)
        self.assertEqual((found.addresses, found.named), ((), ("db.example.com",)))

    def test_same_ones_of_too_many(self) -> None:
        many = [Instance(80, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(10_500)]
        found = instances_in(_answer(*many), passing=False).addresses
        self.assertEqual(len(found), MOST_INSTANCES)
        self.assertEqual(found, instances_in(_answer(*reversed(many)), passing=False).addresses)

    @given(_JSON | st.binary())
    def test_anything(self, said: object) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        try:
            found = instances_in(body, passing=False)
        except NotConsulError as error:
            self.assertIn("its answer is not a list of instances", str(error))
        else:
            self.assertTrue(all(0 < one.port < 65536 for one in found.addresses))


class IndexTests(SynchronousTestCase):
    """Which index the next question has."""

    def test_next_index(self) -> None:
        for before, reported, expected in (
            (0, "7", 7),
            (7, "7", 7),
            (7, "12", 12),
            (12, "7", 0),
            (0, "0", 1),
            (5, "0", 0),
        ):
            self.assertEqual(next_index(before, reported), expected)

    def test_invalid_index(self) -> None:
        for reported in (None, "", "-1", "x", "\u0664", "7" * 21, "7" * 6000):
            self.assertRaises(NotConsulError, next_index, 0, reported)
        self.assertEqual(next_index(0, str(2**64 - 1)), 2**64 - 1)
