"""The kernel's view of a peer: unacknowledged bytes, and whether it still answers.

The system's keepalive asks a peer only when that has acknowledged everything (tcp(7)); until then it sends again for a
quarter of an hour by default. So a relay checks here how long the system has retried.
"""

import array
import contextlib
import fcntl
import math
import socket
import struct
import sys
import termios
from typing import Any, TypeGuard

from txmux.classes import frozen
from txmux.net.sockets.plainsocket import IPPROTO_MPTCP, is_multipath, multipath_info
from txmux.net.sockets.transport import socket_below
from txmux.transport import Keepalive

_INFO = struct.Struct("=2xBB4x16xI24xII")
"""Of ``struct tcp_info`` in linux/tcp.h: retransmits, probes, unacked, last_data_recv and last_ack_recv."""
_QUEUE = struct.Struct("=24xI116xI")
"""Of ``struct tcp_info``: unacked and notsent_bytes."""
_MULTIPATH = struct.Struct("=88xII")
"""Of ``struct mptcp_info`` in linux/mptcp.h: last_data_recv and last_ack_recv; Linux 6.10 and newer."""
_LEAST = 2  # a live peer may be about to answer the first
_TCP_CLOSE = 7  # the state, as Linux counts them


def queued_in(connected: object) -> int:
    """Count the bytes that wait in a socket's send queue (SIOCOUTQ of Linux, tcp(7)); 0 where it cannot be known, or after a reset."""
    queued = array.array("i", [0])
    if not isinstance(connected, socket.socket):
        return 0
    # It may be closed, or of a kind without the answer.
    with contextlib.suppress(OSError, ValueError):
        if _is_dead(connected):
            return 0
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, queued)
        if queued[0] == 1 and connected.proto == IPPROTO_MPTCP and not is_multipath(connected):
            # After MPTCP fell back to TCP, Linux counts one byte until the first is sent.
            info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size)
            return int(any(_QUEUE.unpack(info)))
    return queued[0]


def unacknowledged_by(connected: object) -> float:
    """Count the bytes that a peer has not acknowledged, also after it has reset the connection; infinite is unknown."""
    if not _has_tcp_info(connected):
        bottom = getattr(connected, "bottom", connected)  # of TLS
        return math.inf if bottom is connected else unacknowledged_by(bottom)
    if connected.proto == IPPROTO_MPTCP:
        return math.inf
    queued = array.array("i", [0])
    try:
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, queued)
    except (OSError, ValueError):  # it is closed
        return math.inf
    return queued[0]


def has_ended(connected: object) -> bool:
    """Return whether a peer has closed or reset its connection, and there is nothing left to read."""
    try:
        return isinstance(connected, socket.socket) and not connected.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _is_dead(connected: socket.socket) -> bool:
    """Return whether a TCP connection was reset: its queue is then never emptied (tcp(7), TCP_INFO)."""
    if connected.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
        return False
    # Of several paths, TCP_INFO is about the first, which may be closed.
    state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_CLOSE and not is_multipath(connected)


@frozen
class UnansweredBytes:
    """The bytes that a peer has not answered."""

    seconds: float  # since anything came from it
    tries: int  # how often bytes were sent again, or room was probed for

    def is_lost(self, keepalive: Keepalive) -> bool:
        return self.tries >= max(keepalive.count, _LEAST) and self.seconds >= lost_after(keepalive)

    def pause(self, keepalive: Keepalive) -> float:
        """Return the seconds until the next check; few different lengths, so that many timers share them."""
        whole = lost_after(keepalive)
        if not self.tries:
            return whole
        steps = math.ceil((whole - self.seconds) / keepalive.interval)
        return min(whole, max(1, steps) * keepalive.interval)


ANSWERED = UnansweredBytes(0.0, 0)  # of a peer that has nothing to answer


def lost_after(keepalive: Keepalive | None) -> float:
    """Return how many seconds after its last bytes a peer counts as gone."""
    if keepalive is None:
        return math.inf
    return float(keepalive.idle + keepalive.interval * keepalive.count)


def keepalive_of(*transports: Any) -> Keepalive | None:
    return next(filter(None, map(_keepalive_of, map(socket_below, transports))), None)


def _keepalive_of(connected: object) -> Keepalive | None:
    if not _has_tcp_info(connected):
        return None
    try:
        if not connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            return None
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return Keepalive(*(connected.getsockopt(socket.IPPROTO_TCP, name) for name in names))
    except OSError:  # it is closed
        return None


def unanswered_by(connected: object) -> UnansweredBytes:
    """Return what a socket's peer has not answered; `ANSWERED` also where that is unknown."""
    connected = getattr(connected, "bottom", connected)  # of TLS
    if not _has_tcp_info(connected):
        return ANSWERED
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return ANSWERED
    resent, probed, unacknowledged, since_data, since_acknowledgement = _INFO.unpack(info)
    # A peer that does not read answers each probe, but these come ever more rarely: only those count that got no answer.
    tries = resent if unacknowledged else probed
    if not tries:
        return ANSWERED
    several = multipath_info(connected, _MULTIPATH.size)
    if several is not None:
        # Of several paths, TCP_INFO is about the first; the peer may answer on another one.
        if len(several) < _MULTIPATH.size:
            return ANSWERED
        since_data, since_acknowledgement = _MULTIPATH.unpack(several)
    return UnansweredBytes(min(since_data, since_acknowledgement) / 1000, tries)


def _has_tcp_info(connected: object) -> TypeGuard[socket.socket]:
    return (
        sys.platform == "linux"
        and isinstance(connected, socket.socket)
        and connected.family != socket.AF_UNIX
    )
