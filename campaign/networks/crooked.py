"""A crooked cable, as a program: two TUN interfaces, between which it passes packets late, out of order, twice, or not at all.

It runs until it cannot read on from its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import struct
import sys

from campaign.networks.lateness import UNDER_WAY, Lateness, add_options

_TUNSETIFF = 0x400454CA
_TUN, _NO_HEADER = 0x0001, 0x1000
_LONGEST = 65535


def _interface(name: str) -> int:
    """Make a TUN interface (linux/if_tun.h); whoever holds the descriptor is its cable."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_HEADER))
    return descriptor


class _Cable:
    """Packets under way, each with the end where it arrives."""

    def __init__(self, ends: list[int], wanted: argparse.Namespace) -> None:
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._wanted = wanted
        self._under_way = Lateness[tuple[int, bytes]](wanted)

    def take(self, end: int) -> None:
        """Take all packets that there are at an end."""
        chance = self._under_way.chance
        while True:
            try:
                packet = os.read(end, _LONGEST)
            except (BlockingIOError, OSError):
                return  # an interface that is down gives an error
            if self._wanted.eats and len(packet) > self._wanted.eats:
                continue
            for _ in range(1 + (chance.random() * 100 < self._wanted.twice)):
                # Others are dropped, as by any queue that is full.
                if len(self._under_way) < UNDER_WAY:
                    self._under_way.begin((self._other[end], packet))

    def give(self) -> float | None:
        """Deliver what has arrived, and give the milliseconds until the next packet does."""
        for to, packet in self._under_way.arrived():
            # The interface may be down, or its queue full.
            with contextlib.suppress(OSError):
                os.write(to, packet)
        return self._under_way.left()


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("ends", nargs=2, help="names of the interfaces, which are made")
    add_options(parser)
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
