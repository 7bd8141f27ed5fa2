"""What rules, plugins and sockets all name: TCP and UDP, keepalive, IP addresses."""

import enum
import ipaddress
from functools import lru_cache

import attrs

__all__ = ["Transport"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Transport(enum.Enum):
    """What carries a protocol."""

    TCP = "tcp"
    UDP = "udp"


@attrs.frozen
class Keepalive:
    """TCP keepalive.

    Attributes:
        idle: Seconds without a byte before the peer is probed.
        interval: Seconds from one probe to the next.
        count: Probes without an answer after which the connection is broken.
    """

    idle: int = 60
    interval: int = 15
    count: int = 4


@lru_cache(1024)  # the same few are looked up many times
def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that a v4-mapped IPv6 address (RFC 4291, section 2.5.5.2) means; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address
