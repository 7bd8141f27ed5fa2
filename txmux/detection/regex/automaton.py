"""An automaton without empty moves, run on whole sets of its states.

A set of states is a number whose bit `s` stands for the state `s`, so that all of it moves with a few operations.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

_Jumps = tuple[tuple[int, int], ...]


@attrs.frozen
class Automaton:
    """What each state takes, and where it leads.

    Attributes:
        classes: The class of each of the 256 bytes; bytes of one class are taken by the same states.
        takers: For each class, the states that take it.
        chained: States that lead to the state with the next higher number.
        jumps: All other moves: from any state of the first set to every state of the second.
        near: At `n`, the states from which a match is at most `n` bytes away; at 0, the match itself.
        start: The states before the first byte.
        size: How many states there are.
    """

    classes: bytes
    takers: tuple[int, ...]
    chained: int
    jumps: _Jumps
    near: tuple[int, ...]
    start: int
    size: int

    @classmethod
    def assemble(
        cls, start: int, taken: Mapping[int, int], follow: Mapping[int, int], match: int
    ) -> Automaton:
        """Make an automaton from its table.

        Args:
            start: The states before the first byte.
            taken: For each state, the bytes that it takes, as a number whose bit `b` stands for the byte `b`.
            follow: For each state, the states that it leads to.
            match: The states that are a match. They take nothing.
        """
        chained, jumps = _moves(follow)
        near = _near(match, chained, jumps)
        classes, takers = _takers(taken)
        return cls(classes, takers, chained, jumps, near, start & near[-1], len(follow))

    def step(self, states: int, byte_class: int) -> int:
        """Return the states after one more byte; only those from which a match can be reached."""
        moving = states & self.takers[byte_class]
        reached = (moving & self.chained) << 1
        for sources, targets in self.jumps:
            if moving & sources:
                reached |= targets
        return reached & self.near[-1]

    def shortest(self, states: int) -> float:
        """Return the fewest bytes that lead from some of these states to a match; `math.inf` if none do."""
        distance = bisect_left(self.near, 1, key=lambda near: int(bool(states & near)))
        return distance if distance < len(self.near) else inf

    def longest(self) -> float:
        """Return the most bytes that a match has; `math.inf` if there is no limit."""
        states, length = self.start, 0
        while states:
            reached = (states & self.chained) << 1
            for sources, targets in self.jumps:
                if states & sources:
                    reached |= targets
            states = reached & self.near[-1]
            if length > self.size:
                return inf
            length += bool(states)
        return length


def _moves(follow: Mapping[int, int]) -> tuple[int, _Jumps]:
    chained = 0
    sources: dict[int, int] = {}
    for state, after in follow.items():
        neighbour = 1 << (state + 1)
        if after & neighbour:
            chained |= 1 << state
        targets = after & ~neighbour
        if targets:
            sources[targets] = sources.get(targets, 0) | 1 << state
    return chained, tuple((states, targets) for targets, states in sources.items())


def _near(match: int, chained: int, jumps: _Jumps) -> tuple[int, ...]:
    near = []
    newest = nearest = match
    while newest:
        near.append(nearest)
        before = newest >> 1 & chained
        untouched = []
        for jump in jumps:
            sources, targets = jump
            if targets & newest:
                before |= sources
            else:
                untouched.append(jump)
        jumps = tuple(untouched)
        newest = before & ~nearest
        nearest |= newest
    return tuple(near)


def _takers(taken: Mapping[int, int]) -> tuple[bytes, tuple[int, ...]]:
    by_set: dict[int, int] = {}
    for state, allowed in taken.items():
        by_set[allowed] = by_set.get(allowed, 0) | 1 << state
    numbers: dict[int, int] = {}
    classes = bytearray()
    for byte in range(256):
        takers = sum(states for allowed, states in by_set.items() if allowed >> byte & 1)
        classes.append(numbers.setdefault(takers, len(numbers)))
    return bytes(classes), tuple(numbers)
