"""A kinetic tournament tree: finds which of many is next by weight, without a look at each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
