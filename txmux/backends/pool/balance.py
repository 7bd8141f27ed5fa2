"""Chooses one of several members for a connection: the balancers, and the text that a choice by a hash depends on."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from random import Random

from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import ServerHealth
from txmux.backends.pool.tournament import Tournament
from txmux.rules.model import Balance
from txmux.transport import normal_host

_MOST_REMEMBERED = 4096  # clients of a hash, with the members that come first for each
_RANKED = 8  # of these members: if all are full or tried, the choice takes a look at each member


class Choice:
    """The choice among members that are used alike, in the order of the rules.

    It looks only at a few of them, so it keeps their credit and whether they have room, from when it is made until `settle`.

    Args:
        balance: How to choose.
        random: For ``random``.
    """

    def __init__(self, members: Sequence[Member], balance: Balance, random: Random) -> None:
        self._members, self._balance, self._random = members, balance, random.random
        self._has_turns = balance not in {"random", "first"}
        # While a server starts slowly, this connection is included, or one that has just come would get all connections in a row.
        self._more = any(member.weight < member.full_weight for member in members)
        self._positions: dict[ServerHealth, list[int]] = {}
        for position, member in enumerate(members):
            self._positions.setdefault(member.health, []).append(position)
        self._tournament = Tournament(
            [member.weight for member in members],
            [member.health.credit if self._has_turns else 0 for member in members],
            [self._load(member) for member in members],
        )
        self._next = self._tournament.take_turn
        if balance == "random":
            self._next = self._better_of_two
        elif balance == "first":
            self._next = self._tournament.leader
        self._ranked: dict[str, Sequence[int]] = {}

    def has_untried(self, tried: Collection[Member]) -> bool:
        return any(member not in tried for member in self._members)

    def pick(self, affinity: str, tried: Collection[Member] = ()) -> Member | None:
        """Choose a member with room, other than those already tried; ``None`` if none has room.

        `affinity` is what the choice by a hash depends on; see `affinity_of`. Without it, members take turns there.
        """
        avoided = self._positions_of(tried) if tried else ()
        for position in avoided:
            self._tournament.set_load(position, math.inf)
        chosen = self._by_hash(affinity) if affinity and self._balance in _FACTS else self._next()
        for position in avoided:
            self._tournament.set_load(position, self._load(self._members[position]))
        return None if chosen is None else self._members[chosen]

    def update(self, changed: Iterable[ServerHealth]) -> None:
        """Note that servers have another number of connections."""
        for health in changed:
            for position in self._positions.get(health, ()):
                self._tournament.set_load(position, self._load(self._members[position]))

    def settle(self) -> None:
        """Write the credit into the members' health."""
        if self._has_turns:
            for member, credit in zip(self._members, self._tournament.credit(), strict=False):
                member.health.credit = credit

    def _positions_of(self, tried: Collection[Member]) -> Sequence[int]:
        # Two of them may be one server, which the rules have twice.
        found = (position for one in tried for position in self._positions.get(one.health, ()))
        return [position for position in found if self._members[position] in tried]

    def _load(self, member: Member) -> float:
        if not member.has_room():
            return math.inf
        if self._balance != "least-connections":
            return 0
        return (member.connections + self._more) / member.weight

    def _better_of_two(self) -> int | None:
        """Of two random members, choose the one with fewer connections by weight: the power of two choices."""
        draw = self._tournament.draw
        position, other_position = draw(self._random()), draw(self._random())
        if position is None or other_position is None:
            return None
        first, other = self._members[position], self._members[other_position]
        is_better = other.connections * first.weight < first.connections * other.weight
        return other_position if is_better else position

    def _by_hash(self, affinity: str) -> int | None:
        """Choose the member with the best lot for the client's address or name, so that removing one moves only its own clients.

        This is weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by Schindelhauer and Schomaker, 2005). ``docs/reference/consistent-choice.json``
        promises the choice: other machines and versions make the same one.
        """
        if self._tournament.leader() is None:
            return None
        loads = self._tournament.loads
        ranked = self._ranked.get(affinity)
        if ranked is None:
            if len(self._ranked) >= _MOST_REMEMBERED:
                self._ranked.clear()
            ranked = self._ranked[affinity] = self._rank(affinity, range(len(self._members)))
        for position in ranked:
            if loads[position] < math.inf:
                return position
        with_room = (n for n, load in enumerate(loads) if load < math.inf)
        return self._rank(affinity, with_room)[0]

    def _rank(self, affinity: str, positions: Iterable[int]) -> Sequence[int]:
        """Return those that come first for a client."""
        key = int.from_bytes(blake2b(affinity.encode(), digest_size=8).digest(), "big")

        def lot(position: int) -> float:
            member = self._members[position]
            return -math.log(_lot(key ^ member.seed)) / member.weight

        return heapq.nsmallest(_RANKED, positions, lot)


def _lot(number: int) -> float:
    """Spread 64 bits evenly over the numbers from 0 (excluded) to 1: the finaliser of Vigna's splitmix64."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return ((number ^ number >> 31) + 1) / 2**64


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
