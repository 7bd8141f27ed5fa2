"""A crooked cable, as a program: two TUN interfaces, between which it passes packets late, out of order, twice, or not at all.

It runs until it cannot read on from its standard input.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_TUN, _NO_HEADER = 0x0001, 0x1000
_LONGEST = 65535
_UNDER_WAY = 20_000
"""Packets that may be under way at a time; others are dropped, as by any queue that is full."""


def _interface(name: str) -> int:
    """Make a TUN interface (linux/if_tun.h); whoever holds the descriptor is its cable."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_HEADER))
    return descriptor


class _Cable:
    """Packets under way."""

    def __init__(self, ends: list[int], wanted: argparse.Namespace) -> None:
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._wanted = wanted
        self._chance = random.Random(wanted.seed)
        self._due: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def take(self, end: int) -> None:
        """Take all packets that there are at an end."""
        while True:
            try:
                packet = os.read(end, _LONGEST)
            except (BlockingIOError, OSError):
                return  # an interface that is down gives an error
            if self._wanted.eats and len(packet) > self._wanted.eats:
                continue
            for _ in range(1 + (self._chance.random() * 100 < self._wanted.twice)):
                if len(self._due) < _UNDER_WAY:
                    self._begin(packet, self._other[end])

    def _begin(self, packet: bytes, to: int) -> None:
        wanted = self._wanted
        late = self._chance.uniform(wanted.least, wanted.most)
        if self._chance.random() * 100 < wanted.overtaken:
            late += wanted.most * 3
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + late / 1000, self._number, to, packet))

    def give(self) -> float | None:
        """Deliver what has arrived, and give the milliseconds until the next packet does."""
        while self._due:
            left = self._due[0][0] - time.monotonic()
            if left > 0:
                return left * 1000
            _, _, to, packet = heapq.heappop(self._due)
            try:
                os.write(to, packet)
            except OSError:  # the interface is down, or its queue is full
                continue
        return None


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("ends", nargs=2, help="names of the interfaces, which are made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0, help="milliseconds of delay")
    parser.add_argument("--most", type=float, default=0, help="the same")
    parser.add_argument(
        "--overtaken", type=float, default=0, help="of 100, that others are to overtake"
    )
    parser.add_argument("--twice", type=float, default=0, help="of 100, that arrive twice")
    parser.add_argument("--eats", type=int, default=0, help="packets longer than this never arrive")
    return parser.parse_args()


def main() -> None:
    """Make the cable, and be it."""
    wanted = _parsed()
    ends = [_interface(name) for name in wanted.ends]
    sys.stdout.write("made\n")
    sys.stdout.flush()
    cable = _Cable(ends, wanted)
    waiting = select.poll()
    for readable in (0, *ends):
        waiting.register(readable, select.POLLIN)
    until: float | None = None
    while True:
        for descriptor, _ in waiting.poll(until):
            if descriptor == 0:
                return
            cable.take(descriptor)
        until = cable.give()


if __name__ == "__main__":
    main()
