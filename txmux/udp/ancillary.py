"""Ancillary data of datagrams: the address they were sent to, and the length of each of several that came at once."""

import contextlib
import functools
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from txmux.net.sockets.transport import SO_MEMINFO

Ancillary: TypeAlias = tuple[int, int, bytes]  # Level, type and data, as ``sendmsg()`` takes them

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # udp(7), ``linux/udp.h``
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # ip(7), ipv6(7), RFC 3542 section 6.1
LARGEST = 65_535
"""Bytes of the largest read: of one datagram, or of several that the system has joined."""
MOST_AT_ONCE = 64  # datagrams that the system takes at once (``UDP_MAX_SEGMENTS``)
MOST_BYTES_AT_ONCE = 65_000  # bytes of them, with room for the headers of IP and UDP
SPACE = socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4)  # bytes of all that is read here
_ADDRESS_AND_LINK = struct.Struct("=16sI")
_SIZE = struct.Struct("=i")
_MEMINFO = struct.Struct("=I28xI")
"""``SK_MEMINFO_RMEM_ALLOC``, and ``SK_MEMINFO_DROPS`` eight numbers behind it (linux/sock_diag.h)."""


def ask_for_addresses(port: socket.socket) -> None:
    """Ask the system for the local address of each datagram."""
    if port.family == socket.AF_INET6:
        port.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        port.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def gather(receiver: socket.socket) -> None:
    """Ask the system to join datagrams of one sender and one length, if it can (Linux 5.0)."""
    with contextlib.suppress(OSError):
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)


def gathers(receiver: socket.socket) -> bool:
    """Return whether the system joins datagrams of this socket."""
    try:
        return receiver.getsockopt(SOL_UDP, UDP_GRO) != 0
    except OSError:
        return False


def queue_of(receiver: socket.socket) -> tuple[int, int]:
    """Return the bytes that wait in a socket's buffer, and the datagrams dropped there so far, modulo 2 to the 32nd (Linux 4.12)."""
    try:
        counters = receiver.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
        waiting, dropped = _MEMINFO.unpack(counters)
    except (OSError, struct.error):
        return 0, 0
    return int(waiting), int(dropped)


def since(dropped: int, before: int) -> int:
    return dropped - before & 0xFFFFFFFF


def read(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[bytes, int]:
    """Read what came with datagrams.

    Returns:
        The address they were sent to, as `answer_from` takes it: 4 bytes for IPv4, 16 for IPv6, and 20 for one that means something
        on one link only; empty if the system does not say. And the bytes of each of the datagrams but the last; 0 if there is one.
    """
    local, size = b"", 0
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            size = _SIZE.unpack(data[:4])[0]
        elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            local = data[4:8]
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            is_of_link = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            local = data[:20] if is_of_link else data[:16]
    return local, size


@functools.lru_cache(maxsize=1024)
def answer_from(local: bytes) -> tuple[Ancillary, ...]:
    """Return what sends a datagram from an address of this machine, as `read` gives it; empty leaves it to the system."""
    if len(local) == 4:
        # The link is left to the routes; ``in_pktinfo`` is link, source, destination.
        return ((socket.IPPROTO_IP, _IP_PKTINFO, b"\0\0\0\0" + local + b"\0\0\0\0"),)
    if len(local) == 16:
        info = _ADDRESS_AND_LINK.pack(local, 0)
        return ((socket.IPPROTO_IPV6, _IPV6_PKTINFO, info),)
    if len(local) == 20:
        return ((socket.IPPROTO_IPV6, _IPV6_PKTINFO, local),)
    return ()


@functools.lru_cache(maxsize=1024)
def address_text(local: bytes) -> str:
    """Write a local address; an IPv4 address in its own form."""
    if len(local) == 4:
        return socket.inet_ntop(socket.AF_INET, local)
    if local[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, local[12:16])
    return socket.inet_ntop(socket.AF_INET6, local[:16]) if local else ""


def link_of(local: bytes) -> int:
    """Return the number of the interface of a link-local address; 0 for any other."""
    link: int = _ADDRESS_AND_LINK.unpack(local)[1] if len(local) == 20 else 0
    return link


@functools.lru_cache(maxsize=1024)
def endpoint_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=1024)
def cut_into(size: int) -> tuple[Ancillary, ...]:
    return ((SOL_UDP, UDP_SEGMENT, size.to_bytes(2, "little" if _IS_LITTLE else "big")),)


_IS_LITTLE = struct.pack("=H", 1) == b"\1\0"


def datagrams_in(length: int, size: int) -> int:
    return -(-length // size) if 0 < size < length else 1


def split(data: Any, size: int) -> Sequence[Any]:
    """Return the datagrams of one read."""
    if not 0 < size < len(data):
        return (data,)
    return [data[start : start + size] for start in range(0, len(data), size)]


def first(data: Any, size: int) -> bytes:
    return bytes(data[:size] if 0 < size < len(data) else data)
