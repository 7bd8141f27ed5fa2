"""A network interface that is late, as a program: it holds each packet of a queue of the kernel for its time, so that some overtake others.

A rule of iptables leads packets into the queue (``-j NFQUEUE``), whose owner says by netlink when each may go on. It runs until it cannot read on from its standard input.
Packets that are held then are lost.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import struct
import sys

from campaign.networks.lateness import UNDER_WAY, Lateness, add_options

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
            _attribute(3, struct.pack(">L", UNDER_WAY)),
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

    def take(self, lateness: Lateness[int]) -> None:
        """Take what has come, but not for ever."""
        for _ in range(_AT_ONCE):
            try:
                told = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            # The other kind tells of a packet that is not there any more, since its interface has gone.
            if _HEADER.unpack_from(told)[1] == _PACKET:
                lateness.begin(_PACKET_ID.unpack_from(told)[0])

    def give(self, lateness: Lateness[int]) -> None:
        """Let go what has arrived."""
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
    """Have the queue, and be late."""
    parser = argparse.ArgumentParser()
    parser.add_argument("queue", type=int, help="its number")
    add_options(parser)
    wanted = parser.parse_args()
    queue = _Queue(wanted.queue)
    sys.stdout.write("made\n")
    sys.stdout.flush()
    lateness = Lateness[int](wanted)
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
