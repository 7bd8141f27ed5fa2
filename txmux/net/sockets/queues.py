"""Notices clients that the system turned away since the accept queue of a listening socket was full."""

import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from txmux.classes import frozen
from txmux.net.sockets.plainsocket import IPPROTO_MPTCP

_PERIOD = 60.0  # seconds for which an overflow is reported
_MEMINFO, _DROPS = 55, struct.Struct("9I")  # SO_MEMINFO; the last one is SK_MEMINFO_DROPS
_QUEUE = struct.Struct("24x2I")  # tcpi_unacked and tcpi_sacked: this, of a listening socket
_NETSTAT = Path("/proc/net/netstat")


@frozen
class Overflow:
    """Clients that were turned away within the last minute, and when this began, in seconds since 1970."""

    count: int
    since: float


class ListenQueues:
    """Watches listening sockets.

    A socket counts what it drops, but also what was never a client; the system counts overflows, but those of all programs.
    Only where both grow at once was it a client of this socket.

    Args:
        now: The monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._total = -1
        self._drops: dict[str, int] = {}
        self._lost: dict[str, deque[tuple[float, int]]] = {}
        self._since: dict[str, float] = {}

    def observe(self, sockets: Mapping[str, socket.socket]) -> None:
        """Compare the counts with those of the last look; called each second."""
        before, self._total = self._total, _listen_overflows()
        now, drops = self._now(), dict(_drops(sockets))
        lost = self._total - before if before >= 0 else 0
        for key, count in drops.items() if lost > 0 else ():
            grown = lost if _is_full(sockets[key]) else count - self._drops.get(key, count)
            if grown > 0:
                self._lost.setdefault(key, deque()).append((now, min(grown, lost)))
        self._drops = drops

    def lost(self) -> dict[str, Overflow]:
        """Return the sockets, by their keys, of which an overflow was noticed within the last minute."""
        now, found = self._now(), {}
        for key, times in self._lost.items():
            while times and times[0][0] <= now - _PERIOD:
                times.popleft()
            if times:
                self._since.setdefault(key, time.time() - (now - times[0][0]))
                found[key] = Overflow(sum(count for _, count in times), self._since[key])
            else:
                self._since.pop(key, None)
        return found


def _drops(sockets: Mapping[str, socket.socket]) -> Iterator[tuple[str, int]]:
    for key, listening in sockets.items():
        # By the key, since `family` and `type` make enumerations, each second.
        if not key.startswith(("unix:", "udp:")):
            with suppress(OSError, struct.error):
                *_, drops = _DROPS.unpack(
                    listening.getsockopt(socket.SOL_SOCKET, _MEMINFO, _DROPS.size)
                )
                yield key, drops


def _is_full(listening: socket.socket) -> bool:
    """Return whether the queue of a socket of MPTCP is full: it does not count what it drops."""
    if listening.proto != IPPROTO_MPTCP:
        return False
    waiting, most = _QUEUE.unpack(
        listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size)
    )
    return bool(waiting > most)


def _listen_overflows() -> int:
    """Read ``ListenOverflows`` of this network namespace; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        lines = _NETSTAT.read_text().splitlines()
        names, counts = (line.split() for line in lines if line.startswith("TcpExt:"))
        return int(counts[names.index("ListenOverflows")])
    return 0
