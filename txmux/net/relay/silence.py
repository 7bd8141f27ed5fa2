"""Peers that bytes are on their way to, and that do not answer.

The system's keepalive asks a peer only when that has acknowledged everything (tcp(7)). Until then it sends again what is not
acknowledged, or asks a peer without room for more whether there is some, for a quarter of an hour by default. So it is asked
here how long that has been in vain.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import attrs

from txmux.net.sockets.waiting import below_tls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    Side = TypeVar("Side", bound="Asked")

__all__ = ["QUIET", "Keepalive", "Silence", "keepalive_of", "look", "patience", "silence_of"]

_INFO = struct.Struct("=2xBB4x16xI24xII")
"""Of ``struct tcp_info`` in linux/tcp.h: retransmits, probes, unacked, last_data_recv and last_ack_recv."""
_LEAST = 2  # a peer that is there may just be about to answer the first


class Keepalive(Protocol):
    """When a peer counts as gone; as `txmux.rules.model.Keepalive` has it."""

    @property
    def idle(self) -> int:
        """Seconds without a byte before the peer is asked."""

    @property
    def interval(self) -> int:
        """Seconds from one question to the next."""

    @property
    def count(self) -> int:
        """Questions without an answer after which it is gone."""


@attrs.frozen
class Silence:
    """How long a peer has not answered.

    Attributes:
        seconds: Since anything came from it.
        asked: How many times the system has sent bytes again, or asked for room for them, without an answer.
    """

    seconds: float
    asked: int

    def is_over(self, keepalive: Keepalive) -> bool:
        """Return whether a peer that is there would have answered by now."""
        asked = self.asked >= max(keepalive.count, _LEAST)
        return asked and self.seconds >= patience(keepalive)

    def pause(self, keepalive: Keepalive) -> float:
        """Return the seconds until the next look; few different lengths, so that many timers share them."""
        whole = patience(keepalive)
        if not self.asked:
            return whole
        steps = math.ceil((whole - self.seconds) / keepalive.interval)
        return min(whole, max(1, steps) * keepalive.interval)


QUIET = Silence(0.0, 0)
"""Of a peer that has nothing to answer."""


class Asked(Protocol):
    """A side of a relay."""

    def silence(self) -> Silence:
        """Return how long its peer has not answered."""


def look(sides: Iterable[Side], keepalive: Keepalive) -> tuple[Side | None, float]:
    """Find a side whose peer is gone.

    Returns:
        The side, if there is one, and the seconds after which to look again.
    """
    pause = patience(keepalive)
    for side in sides:
        silence = side.silence()
        if silence.is_over(keepalive):
            return side, pause
        pause = min(pause, silence.pause(keepalive))
    return None, pause


def patience(keepalive: Keepalive | None) -> float:
    """Return how many seconds after its last sign a peer counts as gone."""
    if keepalive is None:
        return math.inf
    return float(keepalive.idle + keepalive.interval * keepalive.count)


@attrs.frozen
class _Options:
    """Implements `Keepalive`, as a socket has it."""

    idle: int
    interval: int
    count: int


def keepalive_of(*transports: Any) -> Keepalive | None:
    """Return the keepalive that the sockets of transports have; ``None`` if they have none, or the system cannot tell."""
    found = (_keepalive_of(below_tls(transport).getHandle()) for transport in transports)
    return next(filter(None, found), None)


def _keepalive_of(connected: object) -> Keepalive | None:
    if not _can_tell(connected):
        return None
    try:
        if not connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            return None
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return _Options(*(connected.getsockopt(socket.IPPROTO_TCP, name) for name in names))
    except OSError:  # it is closed
        return None


def silence_of(connected: object) -> Silence:
    """Return how long a socket's peer has not answered; `QUIET` if it has nothing to, or the system cannot tell."""
    if not _can_tell(connected):
        return QUIET
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return QUIET
    resent, probed, unacknowledged, since_data, since_acknowledgement = _INFO.unpack(info)
    # A peer that does not read answers each probe, but these come ever more rarely: only those count that got no answer.
    asked = resent if unacknowledged else probed
    if not asked:
        return QUIET
    return Silence(min(since_data, since_acknowledgement) / 1000, asked)


def _can_tell(connected: object) -> TypeGuard[socket.socket]:
    return (
        sys.platform == "linux"
        and isinstance(connected, socket.socket)
        and connected.family != socket.AF_UNIX
    )
