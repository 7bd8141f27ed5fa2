"""Tests that clients are led by hashes as is promised, on every machine and in every version."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.pool.balance import affinity_of, balancer
from txmux.backends.pool.member import Member
from txmux.rules.model import Balance
from txmux.rules.reading.endpoints import server

HASHES: tuple[Balance, ...] = ("source-hash", "sni-hash", "host-hash")
VECTORS = Path(__file__).parents[3] / "docs/reference/consistent-choice.json"


def member(text: str, weight: int = 1) -> Member:
    """Make the member of a server as the rules write it."""
    found = server(text)
    return Member(found, found, found.host, weight)


def order(balance: Balance, affinity: str, servers: dict[str, int]) -> list[str]:
    """Give the servers in the order in which they are chosen, each time without those before."""
    left = [member(text, weight) for text, weight in servers.items()]
    found = []
    while left:
        chosen = balancer(balance, Random(1))(left, affinity)
        found.append(chosen.target.text)
        left = [one for one in left if one is not chosen]
    return found


class VectorTests(SynchronousTestCase):
    """The published test vectors."""

    def test_vectors(self) -> None:
        """All three hashes choose as published, in whichever order the servers are written."""
        vectors = json.loads(VECTORS.read_text())
        self.assertGreater(len(vectors), 15)
        for vector in vectors:
            servers = {one["server"]: one["weight"] for one in vector["servers"]}
            for kind in HASHES:
                for ordered in (servers, dict(reversed(servers.items()))):
                    self.assertEqual(order(kind, vector["client"], ordered), vector["order"])

    def test_vectors_differ(self) -> None:
        """Each server is the first choice of somebody, so that a choice that ignores the client would be found."""
        vectors = json.loads(VECTORS.read_text())
        first = {vector["order"][0] for vector in vectors}
        self.assertGreater(len(first), 6)


class AffinityTests(SynchronousTestCase):
    """What a client is led by."""

    def told(self, balance: Balance, address: str = "", **facts: str) -> str:
        """Give what a client is led by."""
        affinity = affinity_of(balance)
        assert affinity is not None
        return affinity(ip_address(address) if address else None, facts)

    def test_names(self) -> None:
        """Names count in lower case and without a final dot; the proxy's word counts after the client's."""
        self.assertEqual(self.told("sni-hash", "::1", sni="WWW.example.com."), "www.example.com")
        self.assertEqual(self.told("sni-hash", sni="a.test", authority="b.test"), "a.test")
        self.assertEqual(self.told("sni-hash", authority="B.test", host="c.test"), "b.test")
        self.assertEqual(self.told("host-hash", sni="a.test", host="C.test"), "c.test")

    def test_without_name(self) -> None:
        """Without a name, and for source-hash always, it is the address; without an address nothing."""
        for kind in HASHES:
            self.assertEqual(self.told(kind, "2001:DB8:0::1"), "2001:db8::1")
            self.assertEqual(self.told(kind, "192.0.2.1", sni="", host="."), "192.0.2.1")
            self.assertEqual(self.told(kind), "")
        self.assertEqual(self.told("source-hash", "192.0.2.1", sni="a", host="b"), "192.0.2.1")

    def test_other_ways(self) -> None:
        """All other ways of choosing ask for nothing."""
        for kind in get_args(Balance):
            self.assertEqual(affinity_of(kind) is None, kind not in HASHES)

    @given(st.text(), st.ip_addresses(), st.sampled_from(HASHES))
    def test_any_text(self, name: str, address: object, balance: Balance) -> None:
        """Whatever a client asks for, it is led by something, and to a server."""
        told = self.told(balance, str(address), sni=name, host=name)
        self.assertTrue(told)
        self.assertEqual(len(order(balance, told, {"10.0.0.1:1": 1, "10.0.0.2:1": 7})), 2)
