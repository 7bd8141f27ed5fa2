"""Chooses one of several members for a connection: the balancers, and the text that a choice by a hash depends on."""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from random import Random

from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import ServerHealth
from txmux.rules.model import Balance
from txmux.transport import normal_host


class Tournament:
    """Competitors with loads and credit. Among those with the least load, the one with most credit wins, and of equal ones the first.

    Credit is that of the "smooth weighted round-robin" that nginx published in 2012: at each turn all with the least load get credit by their
    weights, and the winner pays for all of them. So until a competitor wins, its credit is a straight line over the turns of its load.
    A node of the tree knows who wins below it, and for how many turns: until another line crosses the winner's (Basch, Guibas and
    Hershberger, 1997). A turn recomputes only the nodes above the last winner, and those whose time has come.

    Args:
        weights: Each above 0.
        credit: What each has left from former turns.
        loads: A competitor with an infinite load takes no part.
    """

    def __init__(
        self, weights: Sequence[float], credit: Sequence[float], loads: Sequence[float]
    ) -> None:
        size = self._size = 1 << (len(weights) - 1).bit_length()  # leaves; the last may be empty
        rest = [0] * (size - len(weights))
        self._weights = [*weights, *rest]
        self.loads = [*loads, *(math.inf for _ in rest)]
        # By node, whose children are 2n and 2n + 1.
        self._winners: list[int] = [0] * size + [*range(size)]
        self._ends: list[float] = [math.inf] * (2 * size)  # the last turn in which that is so
        self._totals = [0.0] * size + self._weights  # the weights of all with the winner's load
        self._changed: set[int] = set()
        self._begin([*credit, *rest])

    def _begin(self, credit: list[float]) -> None:
        self._bases = credit  # before the first turn
        self._turns: dict[float, int] = {}  # so far, by the load
        for node in range(self._size - 1, 0, -1):
            self._play(node)

    def credit(self) -> list[float]:
        turns = self._turns
        own = zip(self._bases, self.loads, self._weights, strict=True)
        return [base + turns.get(load, 0) * weight for base, load, weight in own]

    def set_load(self, competitor: int, load: float) -> None:
        before, self.loads[competitor] = self.loads[competitor], load
        if before != load:
            turns = self._turns.get(before, 0) - self._turns.get(load, 0)
            self._bases[competitor] += turns * self._weights[competitor]
            self._changed.add(competitor)

    def leader(self) -> int | None:
        """Return who leads before the next turn; ``None`` if none takes part."""
        for competitor in self._changed:
            node = (self._size + competitor) // 2
            while node:
                self._play(node)
                node //= 2
        self._changed.clear()
        winner = self._winners[1]
        return winner if self.loads[winner] < math.inf else None

    def take_turn(self) -> int | None:
        """Return who wins the next turn, and pays for it; ``None`` if none takes part."""
        leader = self.leader()
        if leader is None:
            return None
        load, turns = self.loads[leader], self._turns
        turns[load] = turn = turns.get(load, 0) + 1
        if self._ends[1] < turn:
            self._replay(1, load, turn)
        winner = self._winners[1]
        self._bases[winner] -= self._totals[1]
        self._changed.add(winner)
        if len(turns) > 2 * self._size:  # few of them are still a competitor's
            self._begin(self.credit())
        return winner

    def draw(self, share: float) -> int | None:
        """Return the competitor at this share of all weights, from 0 to 1 (excluded), of those with the least load."""
        leader = self.leader()
        if leader is None:
            return None
        load, totals, node = self.loads[leader], self._totals, 1
        rest = share * totals[1]
        while node < self._size:
            node *= 2
            if self.loads[self._winners[node]] != load:
                node += 1
            elif rest >= totals[node] and self.loads[self._winners[node + 1]] == load:
                rest -= totals[node]
                node += 1
        return node - self._size

    def _replay(self, node: int, load: float, turn: int) -> None:
        for child in (2 * node, 2 * node + 1):
            if self._ends[child] < turn and self.loads[self._winners[child]] == load:
                self._replay(child, load, turn)
        self._play(node)

    def _play(self, node: int) -> None:
        left, right = 2 * node, 2 * node + 1
        winners, ends, totals = self._winners, self._ends, self._totals
        first, second = winners[left], winners[right]
        load, other = self.loads[first], self.loads[second]
        if load != other:
            least = left if load < other else right
            winners[node], ends[node], totals[node] = winners[least], ends[least], totals[least]
            return
        totals[node] = totals[left] + totals[right]
        end = min(ends[left], ends[right])
        lead = self._bases[first] - self._bases[second]
        slope = self._weights[second] - self._weights[first]
        if slope * self._turns.get(load, 0) > lead:
            winners[node] = second
            if slope < 0:
                end = min(end, -(-lead // slope) - 1)
        else:
            winners[node] = first
            if slope > 0:
                end = min(end, lead // slope)
        ends[node] = end


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
        self._excluded: set[Member] = set()
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
        """Adjust to the servers' numbers of connections."""
        for health in changed:
            for position in self._positions.get(health, ()):
                self._tournament.set_load(position, self._load(self._members[position]))

    def exclude(self, health: ServerHealth) -> None:
        """Choose the members with this health no longer."""
        self._excluded.update(self._members[at] for at in self._positions.get(health, ()))
        self.update((health,))

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
        if member in self._excluded or not member.has_room():
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
