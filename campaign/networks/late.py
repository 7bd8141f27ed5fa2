"""A network interface that is late, as a program: it holds each packet of a queue of the kernel for its time, so that some overtake others.

A rule of iptables leads packets into the queue (``-j NFQUEUE``), whose owner says by netlink when each may go on. It runs until it cannot read on from its standard input.
Packets that are held then are lost.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_SO_RCVBUFFORCE = 33
_ROOM = 64 * 2**20
"""Bytes for what the kernel tells of packets that have not been looked at yet."""
_LONGEST = 8192

# linux/netfilter/nfnetlink_queue.h and linux/netlink.h
_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = _SUBSYSTEM, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST, _ACKNOWLEDGE = 1, 4
_ERROR = 2
_BIND, _COPY_META, _FAIL_OPEN = 1, 1, 1
_ACCEPT = 1
_HEADER = struct.Struct("=LHHLL")
_PACKET_ID = struct.Struct(">20x4xL")
"""The first attribute of a packet begins with its number."""
_ANSWER = struct.Struct("=LHHLL4sHHLL")
_AT_ONCE = 64
"""Packets that are let go by one call of the system."""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


_UNDER_WAY = 20_000
"""Packets that may be under way at a time."""


class _Lateness:
    """Packets under way, by their numbers."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self._wanted = wanted
        self._chance = random.Random(0)
        self._due: list[tuple[float, int]] = []

    def begin(self, packet: int) -> None:
        wanted = self._wanted
        late = self._chance.uniform(wanted.least, wanted.most)
        if self._chance.random() * 100 < wanted.overtaken:
            late += wanted.most * 3
        heapq.heappush(self._due, (time.monotonic() + late / 1000, packet))

    def arrived(self) -> Iterator[int]:
        while self._due and self._due[0][0] <= time.monotonic():
            yield heapq.heappop(self._due)[1]

    def left(self) -> float | None:
        """Return the milliseconds until the next one arrives."""
        return max(0.0, self._due[0][0] - time.monotonic()) * 1000 if self._due else None


class _Queue:
    """The packets of a queue, by the numbers that the kernel has for them."""

    def __init__(self, number: int) -> None:
        self._general = struct.pack(">BBH", socket.AF_UNSPEC, 0, number)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._socket.bind((0, 0))
        wanted = (
            _attribute(1, struct.pack(">BxH", _BIND, socket.AF_UNSPEC)),
            _attribute(2, struct.pack(">LB", 0, _COPY_META)),
            _attribute(3, struct.pack(">L", _UNDER_WAY)),
            # What finds the queue full goes by at once.
            _attribute(4, struct.pack(">L", _FAIL_OPEN)),
            _attribute(5, struct.pack(">L", _FAIL_OPEN)),
        )
        body = self._general + b"".join(wanted)
        flags = _REQUEST | _ACKNOWLEDGE
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _CONFIG, flags, 0, 0) + body)
        kind, error = struct.unpack_from("=4xH10xi", self._socket.recv(_LONGEST))
        if kind != _ERROR or error:
            raise OSError(-error, os.strerror(-error))
        self._socket.setblocking(False)  # noqa: FBT003 - has no name there

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self, lateness: _Lateness) -> None:
        for _ in range(_AT_ONCE):
            try:
                told = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            # The other kind tells of a packet that is not there any more, since its interface has gone.
            if _HEADER.unpack_from(told)[1] == _PACKET:
                lateness.begin(_PACKET_ID.unpack_from(told)[0])

    def give(self, lateness: _Lateness) -> None:
        answers = [
            _ANSWER.pack(
                *(_ANSWER.size, _VERDICT, _REQUEST, 0, 0, self._general, 12, 2),
                *(socket.htonl(_ACCEPT), socket.htonl(packet)),
            )
            for packet in lateness.arrived()
        ]
        for begin in range(0, len(answers), _AT_ONCE):
            self._socket.send(b"".join(answers[begin : begin + _AT_ONCE]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("queue", type=int, help="its number")
    for name in ("--least", "--most", "--overtaken"):
        parser.add_argument(name, type=float, help="as `conditions.Condition` has it")
    wanted = parser.parse_args()
    queue = _Queue(wanted.queue)
    sys.stdout.write("made\n")
    sys.stdout.flush()
    lateness = _Lateness(wanted)
    waiting = select.poll()
    for readable in (0, queue.fileno()):
        waiting.register(readable, select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll(lateness.left()):
            if descriptor == 0:
                return
            queue.take(lateness)
        queue.give(lateness)


if __name__ == "__main__":
    main()
