"""How late each packet of a bad network arrives, by chance."""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

UNDER_WAY = 20_000
"""Packets that may be under way at a time."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Have a program take the options that `Lateness` wants."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0, help="milliseconds of delay")
    parser.add_argument("--most", type=float, default=0, help="the same")
    parser.add_argument(
        "--overtaken", type=float, default=0, help="of 100, that others are to overtake"
    )


class Lateness(Generic[T]):
    """Packets under way.

    Args:
        wanted: The options.

    Attributes:
        chance: What all follows from, for others that leave something to chance.
    """

    def __init__(self, wanted: argparse.Namespace) -> None:
        self._wanted = wanted
        self.chance = random.Random(wanted.seed)
        self._due: list[tuple[float, int, T]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._due)

    def begin(self, packet: T) -> None:
        """Have a packet be under way from now on."""
        wanted = self._wanted
        late = self.chance.uniform(wanted.least, wanted.most)
        if self.chance.random() * 100 < wanted.overtaken:
            late += wanted.most * 3
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + late / 1000, self._number, packet))

    def arrived(self) -> Iterator[T]:
        """Give those that have arrived, each once."""
        while self._due and self._due[0][0] <= time.monotonic():
            yield heapq.heappop(self._due)[2]

    def left(self) -> float | None:
        """Give the milliseconds until the next one arrives, if any is under way."""
        return max(0.0, self._due[0][0] - time.monotonic()) * 1000 if self._due else None
