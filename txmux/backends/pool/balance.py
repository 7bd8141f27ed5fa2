"""Chooses one of several members for a connection: the balancers, and the text that a choice by a hash depends on."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from txmux.transport import normal_host

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address
    from random import Random

    from txmux.backends.pool.member import Member
    from txmux.rules.model import Balance

_MOST_REMEMBERED = 4096

Balancer: TypeAlias = "Callable[[Sequence[Member], str], Member]"
"""Chooses one of several members.

Takes at least one, in the order of the rules, in a sequence that does not change while it is used: other members are another
sequence. And takes what the choice by a hash depends on; see `affinity_of`. Without it, members take turns there.
"""


def balancer(kind: Balance, random: Random) -> Balancer:
    if kind == "random":
        return _Random(random).pick
    return _CHOICES.get(kind) or _Hash().pick


def _smooth(members: Sequence[Member], _: str = "", /) -> Member:
    """Choose by weight, no member twice in a row if another is due.

    All get credit by their weights, and the one with most pays for all. nginx published this "smooth weighted
    round-robin" in 2012; of weights 5, 1, 1 it makes a a b a c a a.
    """
    total = 0.0
    best = members[0]
    most = -math.inf
    for member in members:
        total += member.weight
        health = member.health
        health.credit = credit = health.credit + member.weight
        if credit > most:
            best, most = member, credit
    best.health.credit -= total
    return best


def _least_connections(members: Sequence[Member], _: str, /) -> Member:
    loads = [member.health.connections / member.weight for member in members]
    if any(member.weight < member.full_weight for member in members):
        # This connection is included, or a server that has just come would get all connections in a row.
        loads = [(member.health.connections + 1) / member.weight for member in members]
    least = min(loads)
    if loads.count(least) == 1:
        return members[loads.index(least)]
    return _smooth([m for m, load in zip(members, loads, strict=True) if load == least])


class _Random:
    """Of two random members, the one with fewer connections by weight: the power of two choices."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._members: Sequence[Member] = ()
        self._ends: list[float] = []

    def pick(self, members: Sequence[Member], _: str, /) -> Member:
        if members is not self._members:
            self._members = members
            self._ends = list(accumulate(member.weight for member in members))
        first, other = self._any(), self._any()
        if other.connections * first.weight < first.connections * other.weight:
            return other
        return first

    def _any(self) -> Member:
        ends = self._ends
        return self._members[bisect(ends, self._random() * ends[-1])]


class _Hash:
    """The member with the best lot for the client's address or name, so that removing one moves only its own clients.

    This is weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by Schindelhauer and Schomaker, 2005). ``docs/reference/consistent-choice.json``
    promises the choice: other machines and versions make the same one.
    """

    def __init__(self) -> None:
        self._members: Sequence[Member] = ()
        self._drawn: dict[str, Member] = {}

    def pick(self, members: Sequence[Member], affinity: str, /) -> Member:
        if not affinity:
            return _smooth(members)
        if members is not self._members or len(self._drawn) >= _MOST_REMEMBERED:
            self._members, self._drawn = members, {}
        member = self._drawn.get(affinity)
        if member is None:
            member = self._drawn[affinity] = _draw(members, affinity)
        return member


def _draw(members: Sequence[Member], affinity: str) -> Member:
    key = int.from_bytes(blake2b(affinity.encode(), digest_size=8).digest(), "big")
    return min(members, key=lambda member: -math.log(_lot(key ^ member.seed)) / member.weight)


def _lot(number: int) -> float:
    """Spread 64 bits evenly over the numbers from 0 (excluded) to 1: the finaliser of Vigna's splitmix64."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return ((number ^ number >> 31) + 1) / 2**64


_CHOICES: Mapping[Balance, Balancer] = {
    "round-robin": _smooth,
    "least-connections": _least_connections,
    "first": lambda members, _: members[0],
}

_FACTS: Mapping[Balance, Sequence[str]] = {
    "source-hash": (),
    # The header of a proxy in front that terminates TLS has the name.
    "sni-hash": ("sni", "authority"),
    "host-hash": ("host",),
}


def affinity_of(
    balance: Balance,
) -> Callable[[IPv4Address | IPv6Address | None, Mapping[str, str]], str] | None:
    """Return the function that computes what a choice by a hash depends on; ``None`` if it depends on nothing of the client.

    From the client's address, if it has one, and what its route was decided by, it returns the name that the client asked for, as
    `normal_host` writes it; without a name the address; and without either an empty text.
    """
    names = _FACTS.get(balance)
    if names is None:
        return None

    def affinity(address: IPv4Address | IPv6Address | None, facts: Mapping[str, str]) -> str:
        for name in names:
            value = normal_host(facts.get(name, ""))
            if value:
                return value
        return "" if address is None else str(address)

    return affinity
