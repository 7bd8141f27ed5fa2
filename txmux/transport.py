"""The transports, TCP and UDP. It imports nothing, since rules and plugins import it."""

import enum

__all__ = ["Transport"]


class Transport(enum.Enum):
    """What carries a protocol."""

    TCP = "tcp"
    UDP = "udp"
