"""What rules, plugins and sockets all name: TCP and UDP, keepalive, IP addresses."""

import enum
import ipaddress
import socket
from functools import lru_cache
from zlib import crc32

from txmux.classes import frozen

__all__ = ["Transport"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


_IPV4 = 0xFFFFFFFF
_MAPPED, _NAT64, _6TO4, _TEREDO = 0xFFFF, 0x64FF9B << 64, 0x2002, 0x20010000


class Transport(enum.Enum):
    """What carries a protocol."""

    TCP = "tcp"
    UDP = "udp"

    __hash__ = object.__hash__  # in C, and each member is there once


@frozen
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


def normal_host(name: str) -> str:
    """Return the form in which host names are compared: lower case, without a final dot.

    An IP address is compared as one, however it is written, and a v4-mapped one as IPv4.
    """
    name = name.lower().removesuffix(".")
    if ":" in name or name[-1:].isdigit():
        try:
            return str(unmapped(ipaddress.ip_address(name)))
        except ValueError:
            pass
    return name


def bracketed(host: object) -> str:
    """Return a host as it stands before a port: an IPv6 address in brackets."""
    text = str(host)
    return f"[{text}]" if ":" in text else text


def unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that a v4-mapped IPv6 address (RFC 4291, section 2.5.5.2) means; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address


def embedded(address: IPAddress) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses in an IPv6 address: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056), and Teredo (RFC 4380), which has two."""
    inside = _embedded(int(address)) if address.version == 6 else ()
    return [ipaddress.IPv4Address(number) for number in inside]


def _embedded(number: int) -> tuple[int, ...]:
    if number >> 32 in (_MAPPED, _NAT64):
        return (number & _IPV4,)
    if number >> 112 == _6TO4:
        return (number >> 80 & _IPV4,)
    return (number >> 64 & _IPV4, ~number & _IPV4) if number >> 96 == _TEREDO else ()


def source_of_host(host: str) -> str | bytes:
    """Return the source that an IP address belongs to: an IPv4 address, also one in IPv6, or the first 64 bits of an IPv6 address."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    inside = _embedded(int.from_bytes(packed, "big"))
    # Of Teredo, the last one is the client's.
    return socket.inet_ntoa(inside[-1].to_bytes(4, "big")) if inside else packed[:8]


def source_of_client(client: str) -> str | bytes:
    """Return the source of a client, which is written as in `ConnectionRecord`: as `source_of_host`, or ``unix``."""
    if client[:1] != "[":
        return client.partition(":")[0]
    host = client[1:].partition("]")[0]
    return host.partition("%")[0] if "%" in host else source_of_host(host)


def source_number(client: str) -> int:
    """Return a number of 32 bits for the source of a client."""
    source = source_of_client(client)
    return crc32(source if isinstance(source, bytes) else source.encode())
