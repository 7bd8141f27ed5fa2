"""The transports, TCP and UDP. It imports nothing, since rules and plugins import it."""

from __future__ import annotations

import enum

__all__ = ["Transport"]


class Transport(enum.Enum):
    """What carries a protocol."""

    TCP = "tcp"
    UDP = "udp"
