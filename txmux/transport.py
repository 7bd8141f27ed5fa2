"""What carries a protocol. Whoever reads rules has to know, so this imports nothing."""

from __future__ import annotations

import enum

__all__ = ["Transport"]


class Transport(enum.Enum):
    """What carries a protocol."""

    TCP = "tcp"
    UDP = "udp"
