import json
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import TypeAlias, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.pool.balance import Choice, affinity_of
from txmux.backends.pool.member import Member
from txmux.rules.model import Balance
from txmux.rules.reading.endpoints import server

KINDS: tuple[Balance, ...] = get_args(Balance)
PICKS = 10_000
WEIGHTS = ((1,), (1, 1, 1), (5, 1, 1), (5, 3, 2), (100, 1), (1, 2, 3, 4, 5, 6))


def members_in(servers: dict[str, int]) -> list[Member]:
    found = ((server(text), weight) for text, weight in servers.items())
    return [Member(one, one, one.host, weight) for one, weight in found]


def members_of(*weights: int) -> list[Member]:
    return members_in({f"10.0.0.{n}:80": weight for n, weight in enumerate(weights, 1)})


Chooser: TypeAlias = Callable[[Sequence[Member], str], Member]


def make(kind: Balance) -> Chooser:
    """Choose as a pool does, with a chance that is always the same."""
    random = Random(4)
    before: Sequence[Member] = ()
    choice = Choice(before, kind, random)

    def choose(members: Sequence[Member], affinity: str) -> Member:
        nonlocal before, choice
        if members != before:
            choice.settle()
            before, choice = members, Choice(members, kind, random)
        choice.update([member.health for member in members])
        found = choice.pick(affinity)
        assert found is not None
        return found

    return choose


def letters(members: Sequence[Member], picked: Sequence[Member]) -> str:
    return "".join("abcdef"[members.index(member)] for member in picked)


@pytest.mark.by_turns(each=True)
class DistributionTests(SynchronousTestCase):
    def check(self, kind: Balance, weights: tuple[int, ...], *, held: bool) -> None:
        members, chooser, counts = members_of(*weights), make(kind), Counter[int]()
        for client in range(PICKS):
            member = chooser(members, f"10.{client >> 16}.{client >> 8 & 255}.{client & 255}")
            counts[members.index(member)] += 1
            member.health.connections += held
        for number, weight in enumerate(weights):
            share, right = counts[number] / PICKS, weight / sum(weights)
            self.assertLess(abs(share - right), 0.02, (kind, weights, held, counts))

    def test_by_weight(self) -> None:
        """The shares of 10,000 are those of the weights, whether connections end at once or never."""
        for kind in KINDS:
            for weights in WEIGHTS if kind != "first" else ():
                self.check(kind, weights, held=False)
                self.check(kind, weights, held=True)
        # Two of them give each ten clients exactly so.
        for kind in ("round-robin", "least-connections"):
            members, chooser = members_of(5, 3, 2), make(kind)
            for _ in range(20):
                counts = Counter(members.index(chooser(members, "")) for _ in range(10))
                self.assertEqual(counts, {0: 5, 1: 3, 2: 2})


class OrderTests(SynchronousTestCase):
    def test_order(self) -> None:
        for kind, weights, connections, order in (
            ("round-robin", (5, 1, 1), (), "aabacaa" * 2), ("round-robin", (1, 1, 1), (), "abcabca"),
            ("least-connections", (1, 1, 1), (3, 1, 2), "b"), ("least-connections", (4, 1), (3, 1), "a"),
            ("source-hash", (1, 1), (), "abab"), ("first", (1, 9), (), "a" * 9),
        ):  # fmt: skip
            members, chooser = members_of(*weights), make(kind)  # type: ignore[arg-type]
            for member, count in zip(members, connections, strict=False):
                member.health.connections = count
            picked = [chooser(members, "") for _ in order]
            self.assertEqual(letters(members, picked), order, (kind, weights))
        # What one member does not get, all others share, also if it is offered and fails each time.
        members, chooser, counts = members_of(1, 1, 1), make("round-robin"), Counter[str]()
        for _ in range(300):
            member = chooser(members, "")
            if member is members[0]:
                member = chooser(members[1:], "")
            counts[letters(members, [member])] += 1
        self.assertEqual(counts, {"b": 150, "c": 150})

    def test_better_of_two(self) -> None:
        members, chooser = members_of(1, 1, 1, 1), make("random")
        for member in members[1:]:
            member.health.connections = 100
        count = sum(chooser(members, "") is members[0] for _ in range(PICKS))
        self.assertLess(abs(count / PICKS - (1 - (3 / 4) ** 2)), 0.02)
        choosers = make("random"), make("random")
        first, second = ([chooser(members, "") for _ in range(50)] for chooser in choosers)
        self.assertEqual(first, second)


class SourceHashTests(SynchronousTestCase):
    clients = tuple(f"2001:db8::{number:x}" for number in range(2000))

    def chosen(self, members: Sequence[Member]) -> dict[str, Member]:
        chooser = make("source-hash")
        return {client: chooser(members, client) for client in self.clients}

    def test_same_client_in_each_process(self) -> None:
        members = members_of(1, 1, 1, 1, 1, 1)
        chooser = make("source-hash")
        for _ in range(2):
            picked = [chooser(members, f"192.0.2.{number}") for number in range(16)]
            self.assertEqual(letters(members, picked), "adcdafdcaabdfcee")
        members, chooser = members_of(1, 1), make("source-hash")  # many clients
        first = chooser(members, "10.0.0.1")
        for number in range(10_000):
            chooser(members, str(number))
        self.assertIs(chooser(members, "10.0.0.1"), first)

    def test_one_less(self) -> None:
        members = members_of(1, 2, 3, 1)
        for gone in members:
            before = self.chosen(members)
            after = self.chosen([member for member in members if member is not gone])
            moved = {client for client in self.clients if before[client] is not after[client]}
            self.assertEqual(moved, {client for client in self.clients if before[client] is gone})
            self.assertEqual(len({after[client] for client in moved}), 3)
        members = members_of(1, 1, 1)  # more weight
        before = self.chosen(members)
        members[0].weight = 2
        for client, member in self.chosen(members).items():
            self.assertIn(member, (before[client], members[0]))


HASHES: tuple[Balance, ...] = ("source-hash", "sni-hash", "host-hash")
VECTORS = Path(__file__).parents[3] / "docs/reference/consistent-choice.json"


def order(balance: Balance, affinity: str, servers: dict[str, int]) -> list[str]:
    left = members_in(servers)
    found = []
    while left:
        chosen = make(balance)(left, affinity)
        found.append(chosen.target.text)
        left = [one for one in left if one is not chosen]
    return found


class AffinityTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        vectors = json.loads(VECTORS.read_text())
        self.assertGreater(len(vectors), 15)
        for vector in vectors:
            servers = {one["server"]: one["weight"] for one in vector["servers"]}
            for kind in HASHES:
                for ordered in (servers, dict(reversed(servers.items()))):
                    self.assertEqual(order(kind, vector["client"], ordered), vector["order"])
        # Each server is the first choice of somebody, so that a choice that ignores the client would be found.
        self.assertGreater(len({vector["order"][0] for vector in vectors}), 6)

    def key(self, balance: Balance, address: str = "", **facts: str) -> str:
        affinity = affinity_of(balance)
        assert affinity is not None
        return affinity(ip_address(address) if address else None, facts)

    def test_names(self) -> None:
        self.assertEqual(self.key("sni-hash", "::1", sni="WWW.example.com."), "www.example.com")
        self.assertEqual(self.key("sni-hash", sni="a.test", authority="b.test"), "a.test")
        self.assertEqual(self.key("sni-hash", authority="B.test", host="c.test"), "b.test")
        self.assertEqual(self.key("host-hash", sni="a.test", host="C.test"), "c.test")
        for kind in HASHES:  # without name
            self.assertEqual(self.key(kind, "2001:DB8:0::1"), "2001:db8::1")
            self.assertEqual(self.key(kind, "192.0.2.1", sni="", host="."), "192.0.2.1")
            self.assertEqual(self.key(kind), "")
        self.assertEqual(self.key("source-hash", "192.0.2.1", sni="a", host="b"), "192.0.2.1")
        for kind in get_args(Balance):
            self.assertEqual(affinity_of(kind) is None, kind not in HASHES)

    @given(st.text(), st.ip_addresses(), st.sampled_from(HASHES))
    def test_any_text(self, name: str, address: object, balance: Balance) -> None:
        key = self.key(balance, str(address), sni=name, host=name)
        self.assertTrue(key)
        self.assertEqual(len(order(balance, key, {"10.0.0.1:1": 1, "10.0.0.2:1": 7})), 2)
